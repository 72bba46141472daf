/**
 * The way to a sandbox's agent. The guest is root over every name on it, so no name is trusted:
 * each step opens one entry without following links, and the socket is reached through its descriptor.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { AgentClient } from '@faas-platform/agent-client';
import { FaasError } from '@faas-platform/core';
import { AGENT_DIR, AGENT_SOCKET } from './config-json.js';
/** Not among Node's constants; the same number on every Linux. */
const O_PATH = 0o10000000;
/** Connects to the socket that the agent of the process `pid` listens on. */
export async function connectAgent(pid, options) {
    const dir = openSync(`/proc/${pid}/root/${AGENT_DIR}`, O_PATH | constants.O_NOFOLLOW | constants.O_DIRECTORY);
    try {
        const socket = openSync(`/proc/self/fd/${dir}/${AGENT_SOCKET}`, O_PATH | constants.O_NOFOLLOW);
        try {
            if (!fstatSync(socket).isSocket()) {
                throw new FaasError('agent/protocol-error', { message: 'The sandbox has something else where its agent should listen.' });
            }
            return await AgentClient.connectUnix(`/proc/self/fd/${socket}`, options);
        }
        finally {
            closeSync(socket);
        }
    }
    finally {
        closeSync(dir);
    }
}
/** Speaks to an agent over the two pipes that the helper `hostkitPid` holds for it. */
export async function connectPipes(hostkitPid, pipes, options) {
    const writable = new Socket({ fd: openSync(`/proc/${hostkitPid}/fd/${pipes.toAgent}`, constants.O_WRONLY | constants.O_NONBLOCK), readable: false, writable: true });
    const readable = new Socket({ fd: openSync(`/proc/${hostkitPid}/fd/${pipes.fromAgent}`, constants.O_RDONLY | constants.O_NONBLOCK), readable: true, writable: false });
    return AgentClient.connect({ readable, writable }, options);
}
//# sourceMappingURL=connect.js.map