// The reference model keeps the promises that every backend makes.
import { openBackend } from '../../backends/index.js'
import { conformance } from './conformance.js'

conformance('memory', (size) => openBackend('memory', { size }))
