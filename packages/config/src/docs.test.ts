import { expect, it } from 'vitest'
import { renderConfigurationDocs } from './docs.js'

it('docs/configuration.md is what the schema generates', async () => {
  await expect(renderConfigurationDocs()).toMatchFileSnapshot('../../../docs/configuration.md')
})
