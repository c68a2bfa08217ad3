// Exports that come while the server runs: the words that an operator gives for one, before those that the server was
// started with for all.
import { resolve } from 'node:path'
import type { Config, ServeFlags } from './config.js'
import {
  type ExportConfig,
  exportsOf,
  parseReserve,
  parseSpacePolicy,
  parseSuspectReads,
  refuseUselessImages,
} from './config-exports.js'
import { TLS_MODES } from './nbd/tls.js'
import { parseImage, UsageError } from './values.js'

/** What `candor ctl add` takes beside the image: all that `candor serve` knows of single exports. */
export const EXPORT_FLAGS: readonly string[] = [
  'create',
  'read-only',
  'on-enospc',
  'reserve',
  'suspect-reads',
  'detect-zeroes',
  'allow-clients',
  'allow-subjects',
  'inject',
  'writers',
  'tls',
]

export type ExportFlags = Pick<
  ServeFlags,
  | 'create'
  | 'read-only'
  | 'on-enospc'
  | 'reserve'
  | 'suspect-reads'
  | 'detect-zeroes'
  | 'allow-clients'
  | 'allow-subjects'
  | 'inject'
  | 'writers'
  | 'tls'
>

/** What the command line has seen to, and other programs may not have. @throws UsageError */
export function checkExportFlag(flag: string, value: unknown): void {
  if (!EXPORT_FLAGS.includes(flag)) throw new UsageError(`--${flag} is no word of an export: see 'candor ctl --help'`)
  if (flag === 'read-only' && typeof value !== 'boolean') throw new UsageError('--read-only is true or false')
  if (flag === 'tls' && !TLS_MODES.some((mode) => mode === value)) {
    throw new UsageError(`--tls is ${JSON.stringify(value)}: write ${TLS_MODES.join(', ')}`)
  }
  if (flag === 'read-only' || flag === 'tls' || Array.isArray(value)) return
  throw new UsageError(`--${flag} takes a list of words`)
}

/** One more export of a server. @throws UsageError */
export function addedExport({ flags, tls }: Config, image: string, own: ExportFlags): ExportConfig {
  const { name, path } = parseImage(image)
  const neighbours = flags.images.filter((word) => parseImage(word).name !== name)
  if ((own['allow-subjects'] ?? []).length > 0 && !tls.verifyClient) {
    throw new UsageError('--allow-subjects looks at client certificates: start candor with --tls-verify-client')
  }
  const listed = (names: readonly string[] = []) => names.filter((each) => each !== name)
  const { 'read-only': readOnly, ...others } = own
  const apart = {
    'read-only-export': [...listed(flags['read-only-export']), ...(readOnly === true ? [name] : [])],
    writable: [...listed(flags.writable), ...(readOnly === false ? [name] : [])],
  }
  const exportWords = own.tls === undefined ? flags.exportWords : { ...flags.exportWords, [name]: { tls: own.tls } }
  const words = { ...flags, ...apart, ...others, ...(exportWords && { exportWords }), tls: flags.tls ?? tls.mode }
  const wanted = exportsOf({ ...words, images: [...neighbours, image] }).at(-1)
  if (wanted === undefined) throw new TypeError(`no export came of ${image}`)
  refuseUselessImages(own.create, wanted.readOnly)
  if (wanted.tls !== 'off' && !tls.offered) {
    throw new UsageError(`--tls ${wanted.tls} needs certificates or keys: start candor with --tls-dir or --tls-psk`)
  }
  return { ...wanted, path: resolve(path) }
}

/** An image of a folder, with the words for all. @throws UsageError */
export function folderExport(config: Config, name: string, path: string): ExportConfig {
  return { ...addedExport(config, `${name}=${path}`, {}), isOfFolder: true }
}

/** What `candor ctl set` gives. @throws UsageError, also where it gives nothing */
export function policyOf(own: ExportFlags): Partial<ExportConfig> {
  const known = ['on-enospc', 'reserve', 'suspect-reads'] as const
  for (const key of Object.keys(own)) {
    if (known.some((each) => each === key)) continue
    throw new UsageError(`--${key} cannot be set while the export is served: change it in the configuration file`)
  }
  const [onSpace, reserve, suspects] = known.map((key) => own[key]?.at(-1))
  if (onSpace === undefined && reserve === undefined && suspects === undefined) {
    throw new UsageError('ctl set changes nothing: give --on-enospc, --reserve or --suspect-reads')
  }
  return {
    ...(onSpace !== undefined && { onSpace: parseSpacePolicy(onSpace, '--on-enospc') }),
    ...(reserve !== undefined && { reserve: parseReserve(reserve, '--reserve') }),
    ...(suspects !== undefined && { readsSuspects: parseSuspectReads(suspects, '--suspect-reads') }),
  }
}
