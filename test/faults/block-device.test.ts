// A block device as the image: sizes, edges of blocks, and space that goes back to what lies under the device.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_FLAG_NO_HOLE, NBD_EINVAL, NBD_ENOSPC, NBD_ENOTSUP } from 'nbd-protocol'
import { temporaryFolder } from '../support/candor.js'
import { assertHolds, assertZero, attach, KIB, lastFirst, MIB, refused, serve, stamped } from '../support/faults.js'
import { allocatedBytes, attachLoopDevice, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

for (const sectorBytes of [512, 4096]) {
  test(`a block device with sectors of ${sectorBytes} bytes is served whole, trimmed inwards and zeroed to the byte`, {
    skip: needsRoot('losetup', 'setpriv'),
  }, async (t) => {
    const scope = lastFirst(t)
    const folder = temporaryFolder()
    scope.after(() => folder.remove())
    const size = 16 * MIB + 4096
    const file = sparseFile(join(folder.path, 'under'), size)
    const candor = await serve(scope, [`disk=${attachLoopDevice(scope, file, sectorBytes)}`])
    // A client that did not ask for the size constraints may go by the byte; one that asked has to keep to them.
    const client = await attach(candor, { blockSizes: false })
    const strict = await attach(candor)
    assert.equal(strict.negotiation.info.blockSizes?.minimum, sectorBytes)
    await refused(strict.read(100, 512), NBD_EINVAL)
    assert.equal(client.size, size)
    const content = stamped(0, size)
    await client.write(0, content)
    await client.flush()
    const compare = async () => assert.equal(content.compare(await client.read(0, size)), 0)

    // Unaligned by a few bytes on both sides: the parts of blocks stay.
    await client.trim(MIB + 100, 2 * MIB)
    const first = Math.ceil((MIB + 100) / sectorBytes) * sectorBytes
    const end = Math.floor((3 * MIB + 100) / sectorBytes) * sectorBytes
    await compare().then(
      () => assert.fail('nothing was trimmed'),
      () => content.fill(0, first, end),
    )
    await compare()
    await client.trim(5 * MIB + 10, 100)
    await compare()

    for (const [offset, length, flags] of [
      [4 * MIB + 100, MIB, 0],
      [6 * MIB + 7, MIB + 13, NBD_CMD_FLAG_NO_HOLE],
      [8 * MIB + 1, 100, 0],
      [8 * MIB + 4000, 200, 0],
      [9 * MIB, MIB, NBD_CMD_FLAG_FAST_ZERO],
    ] as const) {
      await client.writeZeroes(offset, length, flags)
      content.fill(0, offset, offset + length)
      await compare()
    }
    await refused(client.writeZeroes(12 * MIB + 100, MIB, NBD_CMD_FLAG_FAST_ZERO), NBD_ENOTSUP)
    await client.write(13 * MIB + 333, stamped(1, 1000))
    stamped(1, 1000).copy(content, 13 * MIB + 333)
    await compare()
    await client.flush()
    await refused(client.write(size - 512, stamped(0, 1024)), NBD_ENOSPC)
    await refused(client.read(size, 1), NBD_EINVAL)
    await assertZero(client, first, end - first)
    await assertHolds(client, 16 * MIB, 4 * KIB)

    const before = allocatedBytes(file)
    await client.trim(0, size)
    await client.flush()
    assert.ok(allocatedBytes(file) < before - 8 * MIB, 'the space goes back to the file under the device')
    assert.equal((await candor.stop()).code, 0)
  })
}
