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
    pool: 'forks',
    // Real sandboxes on two cores: files one after the other keep figures and deadlines honest.
    fileParallelism: false,
  },
})
