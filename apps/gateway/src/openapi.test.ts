import { Validator } from '@seriousme/openapi-schema-validator'
import { describe, expect, it } from 'vitest'
import type { Json } from '../test-support/rig.js'
import { makeRig } from '../test-support/rig.js'

describe('the OpenAPI document', () => {
  it('is valid OpenAPI 3.1', async () => {
    await using rig = await makeRig()
    const { body } = await rig.get('/openapi.json')
    expect(body.openapi).toBe('3.1.0')
    expect(await new Validator().validate(body)).toEqual({ valid: true })
  })

  it('names every route that the gateway serves, each with its errors', async () => {
    await using rig = await makeRig()
    const { body } = await rig.get('/openapi.json')
    const operations = Object.entries(body.paths as Record<string, Record<string, Json>>).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`))
    for (const wanted of [
      'POST /api/v1/execute', 'POST /api/v1/execute/advanced', 'POST /api/v1/execute-advanced', 'POST /api/v1/prewarm', 'GET /api/v1/pools', 'GET /api/v1/pools/detailed',
      'GET /api/v1/metrics', 'GET /api/v1/metrics/detailed', 'GET /api/v1/metrics/prometheus', 'GET /metrics', 'GET /health', 'GET /api/v1/executions',
      'GET /api/v1/executions/{id}', 'DELETE /api/v1/executions/{id}', 'POST /api/v1/executions/{id}/cancel', 'GET /api/v1/executions/{id}/logs',
      'GET /api/v1/executions/{id}/stream', 'GET /api/v1/logs/{id}/stream', 'GET /api/v1/containers/{id}/stream', 'POST /api/v1/instances', 'GET /api/v1/instances',
      'POST /api/v1/instances/{id}/exec', 'POST /api/v1/snapshots', 'GET /api/v1/snapshots', 'POST /api/v1/fork', 'POST /api/v1/keys', 'GET /api/v1/images', 'GET /api/v1/runtimes',
    ]) expect(operations).toContain(wanted)
    for (const methods of Object.values(body.paths as Record<string, Record<string, Json>>)) {
      for (const operation of Object.values(methods)) expect(operation.summary).toBeTruthy()
    }
  })

  it('has a page that loads nothing from elsewhere', async () => {
    await using rig = await makeRig()
    const page = await rig.fetch('/docs/')
    const html = await page.text()
    expect(page.status).toBe(200)
    const assets = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1] ?? '')
    expect(assets.length).toBeGreaterThan(3)
    for (const asset of assets) {
      expect(asset).not.toMatch(/^(https?:)?\/\//)
      const response = await rig.fetch(new URL(asset, `${rig.url}/docs/`).pathname)
      expect(response.status, asset).toBe(200)
    }
    expect(page.headers.get('content-security-policy')).toContain("default-src 'self'")
    const initializer = await (await rig.fetch('/docs/static/swagger-initializer.js')).text()
    expect(initializer.replaceAll(/^ *\/\/.*$/gm, '')).not.toMatch(/https?:\/\//)
  })
})
