/** bench/RESULTS.md from one report. */
export function renderResults(report, rawName) {
  const { host, sections } = report
  const lines = [
    '# Results',
    '',
    `Measured ${report.startedAt.slice(0, 10)} on ${host.cores} cores (${host.cpu}), ${host.memoryGib} GiB, Linux ${host.kernel}, Node ${host.node}, ${report.rounds} rounds, everything interleaved in one run. The machine is noisy: read ratios, which are medians of per-round ratios, before milliseconds. Raw samples: \`raw/${rawName}\`. Repeat with \`npm run bench\`.`,
    '',
    ...Object.entries(report.versions ?? {}).map(([name, version]) => `- ${name}: ${version}`),
    '',
  ]
  for (const kind of ['cold', 'warm']) {
    const section = sections[kind]
    if (section === undefined) continue
    lines.push(`## Create to result, ${kind} (\`echo hello\`, ms)`, '', '| what | p50 | p95 | p99 | n |', '|---|---|---|---|---|')
    for (const [name, s] of Object.entries(section.summaries)) lines.push(`| ${name} | ${ms(s.p50)} | ${ms(s.p95)} | ${ms(s.p99)} | ${s.n} |`)
    lines.push('', '| runtime | times faster than |', '|---|---|')
    for (const [name, ratios] of Object.entries(section.ratios)) lines.push(`| ${name} ${kind} | ${Object.entries(ratios).map(([baseline, ratio]) => `\`${baseline}\`: ${ratio}×`).join(', ')} |`)
    lines.push('')
  }
  if (sections.burst !== undefined) {
    lines.push('## Burst of 100 concurrent calls (ms)', '', '| runtime | p50 | p95 | p99 | all done | failed |', '|---|---|---|---|---|---|')
    for (const [name, s] of Object.entries(sections.burst)) lines.push(`| ${name} | ${ms(s.p50)} | ${ms(s.p95)} | ${ms(s.p99)} | ${ms(s.allDoneMs)} | ${s.failed} |`)
    lines.push('')
  }
  if (sections.sustained !== undefined) {
    lines.push('## Sustained executions per second', '', '| runtime | concurrency 1 | 4 | 16 |', '|---|---|---|---|')
    for (const [name, s] of Object.entries(sections.sustained)) lines.push(`| ${name} | ${s[1]} | ${s[4]} | ${s[16]} |`)
    lines.push('')
  }
  if (sections.gateway !== undefined) {
    const { executor, gateway, overheadP50Ms } = sections.gateway
    lines.push('## Gateway over the bare executor (warm `echo hello`, ms)', '', '| what | p50 | p95 | p99 | n |', '|---|---|---|---|---|')
    lines.push(`| executor | ${ms(executor.p50)} | ${ms(executor.p95)} | ${ms(executor.p99)} | ${executor.n} |`, `| HTTP | ${ms(gateway.p50)} | ${ms(gateway.p95)} | ${ms(gateway.p99)} | ${gateway.n} |`, '', `Overhead at p50: **${ms(overheadP50Ms)} ms**.`, '')
  }
  if (sections.memory !== undefined) {
    lines.push('## Memory of an idle warm sandbox', '', '| runtime | PSS of its processes (MiB) | cgroup (MiB) | sandboxes |', '|---|---|---|---|')
    for (const [name, s] of Object.entries(sections.memory)) lines.push(`| ${name} | ${s.pssMib} | ${s.cgroupMib} | ${s.count} |`)
    lines.push('')
  }
  return `${lines.join('\n')}\n`
}

const ms = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(2))
