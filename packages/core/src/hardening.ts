/** What a guest is allowed at most, the same in every container runtime. Domain policy: drivers translate, they do not choose. */

/**
 * Capabilities inside the sandbox; all others are dropped. Enough for package managers, `su`, services on low ports.
 * Left out of Docker's default set: MKNOD (device nodes), NET_RAW (forged packets), SETFCAP (files that grant
 * capabilities), AUDIT_WRITE (the host's audit log).
 */
export const SANDBOX_CAPABILITIES = [
  'CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_KILL', 'CAP_NET_BIND_SERVICE',
  'CAP_SETGID', 'CAP_SETPCAP', 'CAP_SETUID', 'CAP_SYS_CHROOT',
] as const

/** When the host itself runs out of memory, sandboxes go first. */
export const SANDBOX_OOM_SCORE_ADJ = 500

/** Commands go before the agent when a sandbox runs out of its own memory: the agent has to tell about it. */
export const COMMAND_OOM_SCORE_ADJ = 900

/** Bytes of /dev/shm; they count against the sandbox's memory limit too. */
export const SANDBOX_SHM_BYTES = 64 * 1024 * 1024
