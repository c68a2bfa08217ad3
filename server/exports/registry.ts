// The exports of a server by name. The first one also answers to the empty name, the spec's default export.
export class ExportRegistry<Entry extends { readonly name: string }> {
  readonly #exports = new Map<string, Entry>()

  /** @throws TypeError when the name is taken: configuration has refused that before */
  add(entry: Entry): void {
    if (this.#exports.has(entry.name)) throw new TypeError(`two exports are named '${entry.name}'`)
    this.#exports.set(entry.name, entry)
  }

  /** Puts another entry in the place of the one of its name. @throws TypeError when there is none */
  replace(entry: Entry): void {
    if (!this.#exports.has(entry.name)) throw new TypeError(`there is no export '${entry.name}' to replace`)
    this.#exports.set(entry.name, entry)
  }

  remove(name: string): void {
    this.#exports.delete(name)
  }

  /** Whether there is one of this very name. */
  holds(name: string): boolean {
    return this.#exports.has(name)
  }

  find(name: string): Entry | undefined {
    if (name !== '') return this.#exports.get(name)
    const [first] = this.#exports.values()
    return this.#exports.get('') ?? first
  }

  [Symbol.iterator](): IterableIterator<Entry> {
    return this.#exports.values()
  }
}
