// The commands of candor in the order in which --help and the manual page tell of them.
import type { Command } from './command.js'
import { create } from './create.js'
import { ctl } from './ctl.js'
import { errors } from './errors.js'
import { info } from './info.js'
import { map } from './map.js'
import { serve } from './serve.js'
import { vhostUserBlk } from './vhost-user-blk.js'

export const COMMANDS: readonly Command<never>[] = [serve, create, ctl, errors, map, info, vhostUserBlk]
