import { defineConfig } from 'vitest/config'

// Sources are resolved by the `source` export condition, so tests need no build.
// Not 'import': vitest hands these to node as flags, and a `require` of a dual package would get its ES module.
const shared = { conditions: ['source', 'node'] }

export default defineConfig({
  resolve: shared,
  ssr: { resolve: { ...shared, externalConditions: ['node'] }, noExternal: [/^@faas-platform\//] },
  test: {
    include: ['{packages,drivers,apps,sdks,tests,scripts,examples,bench}/**/*.{test,prop.test,e2e.test}.{ts,mjs}'],
    exclude: ['**/node_modules/**', '**/dist/**', '**/.tools/**'],
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // Real kernels, engines and kills on two shared cores: one late process must not fail a run. What fails twice is broken.
    retry: process.env['CI'] === 'true' ? 2 : 0,
    pool: 'forks',
    // Real sandboxes on two cores: files one after the other keep figures and deadlines honest.
    fileParallelism: false,
  },
})
