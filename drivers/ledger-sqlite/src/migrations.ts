/** The schema, step by step. Steps only go forward and are never edited once released; each runs in its own transaction. */

export const MIGRATIONS: readonly { readonly version: number; readonly sql: string }[] = [
  {
    version: 1,
    sql: `
      CREATE TABLE executions (
        id TEXT PRIMARY KEY,
        principal TEXT NOT NULL,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        request TEXT NOT NULL,
        stdin BLOB,
        result TEXT,
        stdout BLOB,
        stderr BLOB,
        outline TEXT,
        idempotency_key TEXT,
        request_hash TEXT,
        instance_id TEXT,
        created_ms REAL NOT NULL,
        started_ms REAL,
        ended_ms REAL
      ) WITHOUT ROWID;
      CREATE INDEX executions_newest ON executions (created_ms DESC, id DESC);
      CREATE INDEX executions_of_principal ON executions (principal, created_ms DESC, id DESC);
      CREATE INDEX executions_unfinished ON executions (created_ms) WHERE ended_ms IS NULL;
      CREATE INDEX executions_ended ON executions (ended_ms) WHERE ended_ms IS NOT NULL;

      CREATE TABLE idempotency (
        principal TEXT NOT NULL,
        key TEXT NOT NULL,
        request_hash TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        expires_ms REAL NOT NULL,
        PRIMARY KEY (principal, key)
      ) WITHOUT ROWID;
      CREATE INDEX idempotency_expiry ON idempotency (expires_ms);
      CREATE INDEX idempotency_of_execution ON idempotency (execution_id);

      CREATE TABLE instances (
        id TEXT PRIMARY KEY,
        principal TEXT NOT NULL,
        state TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        record TEXT NOT NULL
      ) WITHOUT ROWID;

      CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        principal TEXT NOT NULL,
        hash TEXT NOT NULL UNIQUE,
        prefix TEXT NOT NULL,
        scopes TEXT NOT NULL,
        created_ms REAL NOT NULL,
        expires_ms REAL,
        revoked_ms REAL,
        last_used_ms REAL
      ) WITHOUT ROWID;

      CREATE TABLE usage_totals (
        principal TEXT NOT NULL,
        day TEXT NOT NULL,
        executions INTEGER NOT NULL,
        wall_ms REAL NOT NULL,
        cpu_ms REAL NOT NULL,
        memory_gib_seconds REAL NOT NULL,
        output_bytes REAL NOT NULL,
        PRIMARY KEY (principal, day)
      ) WITHOUT ROWID;
    `,
  },
]
