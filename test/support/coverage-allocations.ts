// How many bytes the codec asks for while it runs. It makes its buffers by `new Uint8Array(length)`, and it finds that
// name in the global scope: a proxy in its place counts, and is exact where a look at the heap would be a guess.

export class AllocationMeter {
  readonly #original = globalThis.Uint8Array
  readonly #counting: typeof Uint8Array
  #bytes = 0

  constructor() {
    const construct = (target: typeof Uint8Array, args: readonly unknown[], newTarget: new () => object): object => {
      if (typeof args[0] === 'number') this.#bytes += args[0]
      return Reflect.construct(target, args, newTarget)
    }
    this.#counting = new Proxy(this.#original, { construct })
  }

  /** Bytes that were asked for since `start`. */
  get bytes(): number {
    return this.#bytes
  }

  /** Counts from 0, until `stop`. */
  start(): void {
    this.#bytes = 0
    globalThis.Uint8Array = this.#counting
  }

  stop(): void {
    globalThis.Uint8Array = this.#original
  }
}
