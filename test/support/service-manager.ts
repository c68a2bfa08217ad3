// A service manager in the small: it starts candor, hears sd_notify(3), and keeps descriptions for the next start, as systemd
// does (FDSTORE, LISTEN_FDS), and hears the main process alone. Python has what Node lacks for it: datagrams with descriptors.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { CANDOR_MAIN } from './candor.js'
import type { Scope } from './faults.js'

const MANAGER = `
import array, ctypes, json, os, signal, socket, struct, subprocess, sys, threading
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
notify.bind(sys.argv[1])
store, main = {}, 0
def say(*words): print(*words, flush=True)
def receive():
    text, ancillary, _, _ = notify.recvmsg(4096, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4))
    fds, sender = array.array('i'), 0
    for _, kind, data in ancillary:
        if kind == socket.SCM_RIGHTS: fds.frombytes(data)
        else: sender = struct.unpack('3i', data)[0]
    return dict(line.split('=', 1) for line in text.decode().split('\\n')), fds, sender
def hear():
    global main
    while True:
        words, fds, sender = receive()
        # As with NotifyAccess=main.
        if sender != main:
            for fd in fds: os.close(fd)
            say('ignored', *words)
            continue
        if 'MAINPID' in words: main = int(words['MAINPID'])
        name = words.get('FDNAME')
        if words.get('FDSTORE') == '1':
            os.set_inheritable(fds[0], False)
            # A description that is there already is closed, as systemd does.
            if name in store: os.close(fds[0])
            else: store[name] = fds[0]
            say('stored', name)
        elif words.get('FDSTOREREMOVE') == '1':
            fd = store.pop(name, None)
            if fd is not None: os.close(fd)
            say('removed', name)
        if words.get('READY') == '1': say('ready')
threading.Thread(target=hear, daemon=True).start()
for line in sys.stdin:
    word, *arguments = json.loads(line)
    if word == 'start':
        names, high = list(store), [os.dup2(store[name], 100 + at, False) for at, name in enumerate(store)]
        env = dict(os.environ, NOTIFY_SOCKET=sys.argv[1])
        if names: env.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=':'.join(names))
        def lay_out():
            for at, fd in enumerate(high): os.dup2(fd, 3 + at, inheritable=True)
        argv = ['sh', '-c', 'export LISTEN_PID=$$; exec "$@"', 'sh', *arguments]
        main = subprocess.Popen(argv, env=env, preexec_fn=lay_out, close_fds=False, stdout=subprocess.DEVNULL).pid
        for fd in high: os.close(fd)
    else:
        os.kill(main, getattr(signal, word))
        say('ended', os.waitstatus_to_exitcode(os.waitpid(main, 0)[1]))
`

export interface SmallServiceManager {
  /** Starts `candor WORDS` and waits until it says that it is ready. */
  start(...words: readonly string[]): Promise<void>
  /** Sends a signal and waits for the end; returns the exit code, or minus the signal. */
  end(signal: NodeJS.Signals): Promise<number>
  /** What was heard: 'stored NAME', 'removed NAME', 'ready', 'ended CODE', and 'ignored KEYS' of another process. */
  readonly heard: readonly string[]
}

export function startServiceManager(scope: Scope, notifySocket: string): SmallServiceManager {
  const python = spawn('python3', ['-c', MANAGER, notifySocket], { stdio: ['pipe', 'pipe', 'inherit'] })
  const heard: string[] = []
  const lines = createInterface(python.stdout)
  lines.on('line', (line) => heard.push(line))
  const order = (...words: readonly string[]) => python.stdin.write(`${JSON.stringify(words)}\n`)
  const next = async (pattern: RegExp, after: number): Promise<string> => {
    for (;;) {
      const found = heard.slice(after).find((line) => pattern.test(line))
      if (found !== undefined) return found
      await once(lines, 'line')
    }
  }
  const end = async (signal: NodeJS.Signals) => {
    const after = heard.length
    order(signal)
    return Number((await next(/^ended/, after)).split(' ')[1])
  }
  let runs = false
  scope.after(async () => {
    if (runs) await end('SIGKILL')
    python.kill()
    await once(python, 'exit')
  })
  return {
    heard,
    start: async (...words) => {
      const after = heard.length
      order('start', process.execPath, CANDOR_MAIN, ...words)
      runs = true
      await next(/^ready$/, after)
    },
    end: async (signal) => {
      runs = false
      return end(signal)
    },
  }
}
