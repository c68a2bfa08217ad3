// The typed door of what a process needs to hand its work to another one. Law: nothing here waits.
import { fileIo } from './file-io.js'

export interface ProcessDoor {
  /** socket(2), bind(2), listen(2) of a Unix stream socket: a descriptor, or minus errno. */
  listenUnix(path: string, backlog: number): number
  /** memfd_create(2): a descriptor, or minus errno. */
  anonymousFile(): number
  /** waitpid(2) with WNOHANG: the exit code, 128 and a signal's number, -1 while it lives, -2 for no child of ours. */
  waitChild(pid: number): number
  /** prctl(2), PR_SET_CHILD_SUBREAPER: descendants whose parent ends become children of this process. Returns an errno. */
  adoptOrphans(): number
}

export const processDoor: ProcessDoor = fileIo
