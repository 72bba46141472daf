/** The writable layer of a sandbox after its processes are gone. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { FaasError } from '@faas-platform/core';
import { AGENT_DIR } from './config-json.js';
/** Moves the layer out of the sandbox's directory, without what the platform itself put there. */
export function retainUpper(options) {
    const { id, upper, path: kept, hostkit } = options;
    return {
        steps: [['rmtree', join(upper, AGENT_DIR)], ['rename', upper, kept]],
        async state() {
            const usage = JSON.parse(await hostkit.call('usage', kept, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER));
            return new RetainedUpper(id, usage.bytes, kept, options);
        },
    };
}
class RetainedUpper {
    sandboxId;
    sizeBytes;
    path;
    options;
    #disposed = false;
    constructor(sandboxId, sizeBytes, path, options) {
        this.sandboxId = sandboxId;
        this.sizeBytes = sizeBytes;
        this.path = path;
        this.options = options;
    }
    async *export(signal) {
        if (this.#disposed)
            throw new FaasError('execution/result-expired', { message: 'The end state is no longer retained.' });
        signal.throwIfAborted();
        const child = spawn(this.options.hostkitPath, ['pack', '--root', this.path, '--whiteouts', 'oci'], { stdio: ['ignore', 'pipe', 'pipe'], signal });
        const stderr = [];
        child.stderr.on('data', (chunk) => void stderr.push(chunk));
        const ended = new Promise((resolve, reject) => {
            child.once('error', reject);
            child.once('close', (code) => resolve(code));
        });
        ended.catch(() => { });
        try {
            for await (const chunk of child.stdout)
                yield chunk;
            const code = await ended;
            if (code !== 0) {
                throw new FaasError('sandbox/file-error', {
                    message: 'The retained files could not be packed.',
                    cause: new Error(Buffer.concat(stderr).toString('utf8').slice(0, 2000)),
                });
            }
        }
        finally {
            child.kill('SIGKILL');
        }
    }
    async [Symbol.asyncDispose]() {
        if (this.#disposed)
            return;
        this.#disposed = true;
        await this.options.hostkit.call('rmtree', this.path);
    }
}
//# sourceMappingURL=retained.js.map