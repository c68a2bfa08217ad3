// The full host in every combination of attachment, the server's policy, QEMU's policy and I/O engine. It takes long, so
// that it belongs to `./test/run --all`; three of the combinations are in every run (full-host-space.test.ts).
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ATTACHMENTS } from '../support/guest-attachments.js'
import { type Combination, playFullHost, SPACE_POLICIES, skipWithoutFullHosts } from '../support/guest-full-host.js'
import { enginesIn, ioEngines } from '../support/io-engines.js'
import { onlyUnderAll } from '../support/requirements.js'

const skip = onlyUnderAll() || skipWithoutFullHosts()
const engines = ioEngines()

const combinations: readonly Combination[] = (engines.length === 0 ? [undefined] : engines).flatMap((engine) =>
  ATTACHMENTS.flatMap((attachment) =>
    SPACE_POLICIES.flatMap((onEnospc) =>
      (attachment.werror.length === 0 ? [undefined] : attachment.werror).map((werror) => ({
        attachment,
        onEnospc,
        werror,
        engine,
      })),
    ),
  ),
)

function titleOf({ attachment, onEnospc, werror, engine }: Combination): string {
  const words = [`--on-enospc ${onEnospc}`, ...(werror === undefined ? [] : [`werror=${werror}`])]
  return [attachment.name, ...words, engine === undefined ? 'the only I/O engine' : `--io-engine ${engine}`].join(', ')
}

describe('a full host', { skip }, () => {
  for (const combination of combinations) test(titleOf(combination), (t) => playFullHost(t, combination))
})

test('the I/O engines that are tested are those that candor serve --help offers', () => {
  const choices = '[string] [choices: "auto", "uring",\n  "pool"] [default: "auto"]'
  assert.deepEqual(enginesIn(`  --listen  where\n  --io-engine  how ${choices}\n`), ['uring', 'pool'])
  assert.deepEqual(enginesIn(`  --listen  where\n  --tls  which ${choices}\n`), [])
  assert.throws(() => enginesIn(`  --io-engine  how  [string]\n  --tls  which ${choices}`), /names no choices/)
})
