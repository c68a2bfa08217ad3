// A real kernel's NBD driver, whose nbd-client carries its bytes through TLS in a process of its own.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { bootGuest, skipWithoutGuests } from '../support/guest.js'
import { patternBytes, patternDrive, sha256, sha256OfFile } from '../support/guest-images.js'
import { needs } from '../support/requirements.js'
import { CLIENT_SUBJECT, makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'
import { serveTls } from '../support/tls-server.js'

const MIB = 2 ** 20
const skip = needs(...TLS_PROGRAMS, 'nbd-client') || skipWithoutGuests()

/** A line of the guest's script that puts a file of the host in the guest's /run. */
function brought(folder: string, name: string): string {
  return `printf '%s' '${readFileSync(join(folder, name), 'utf8')}' >/run/${name}`
}

test('a guest with nbd-client attaches by TLS with its certificate, writes, reads back and detaches; without it, it does not', {
  skip,
}, async (scope) => {
  const material = makeTlsMaterial(scope)
  const rule = ['--allow-subjects', CLIENT_SUBJECT]
  const served = await serveTls(scope, '16M', '--tls-dir', material.server, '--tls-verify-client', ...rule)
  const pattern = patternBytes(8 * MIB)
  const nbdClient = `nbd-client 10.0.2.2 ${served.port} -N disk -cacertfile /run/ca-cert.pem -tlshostname localhost`
  const shown = '-certfile /run/client-cert.pem -keyfile /run/client-key.pem'
  const { status, output, kernelLog } = await bootGuest({
    qemuArguments: patternDrive(scope, pattern),
    script: `
      set +x
      ${['ca-cert.pem', 'client-cert.pem', 'client-key.pem'].map((name) => brought(material.client, name)).join('\n')}
      set -x
      if nbd-client 10.0.2.2 ${served.port} -N disk /dev/nbd0; then exit 90; fi
      if ${nbdClient} /dev/nbd0; then exit 91; fi
      ${nbdClient} ${shown} -b 4096 /dev/nbd0
      dd if=/dev/vda of=/dev/nbd0 bs=1M seek=4 conv=fsync
      blockdev --flushbufs /dev/nbd0
      sha256sum /dev/nbd0
      nbd-client -d /dev/nbd0
    `,
  })
  assert.equal(status, 0, `${output}\n${kernelLog.slice(-4000)}`)
  assert.doesNotMatch(kernelLog, /I\/O error|Connection timed out/)
  const expected = sha256(Buffer.concat([Buffer.alloc(4 * MIB), pattern, Buffer.alloc(4 * MIB)]))
  assert.equal(/^(\w{64}) {2}\/dev\/nbd0$/m.exec(output)?.[1], expected)
  assert.equal((await served.candor.stop()).code, 0)
  assert.equal(sha256OfFile(served.image), expected)
})
