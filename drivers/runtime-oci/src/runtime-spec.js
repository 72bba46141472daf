/** The parts of the OCI runtime specification's `config.json` that this driver writes. */
export {};
//# sourceMappingURL=runtime-spec.js.map