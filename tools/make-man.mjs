// Writes the manual page: make-man.mjs [FILE] (default dist/candor.1). The build has to be there.
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { manualPage } from '../dist/server/cli/manual.js'

writeFileSync(process.argv[2] ?? fileURLToPath(new URL('../dist/candor.1', import.meta.url)), manualPage())
