import { ByteWriter } from "../bytes/writer.ts"

/** Instruction sets for which the filter has a table of system call numbers. */
export type SeccompArchitecture = "x64" | "arm64"

/**
 * Filter for a job's processes as a classic BPF program: `struct sock_filter` records of 8 bytes, ready for `bwrap --seccomp FD`.
 *
 * A closed list in effect: it refuses by name what a training job has no use for, and everything that is newer than its table (ENOSYS, so that programs fall
 * back). Refused calls get EPERM. Calls of another instruction set (32-bit, x32) end the process, since their numbers mean other things.
 * Source: seccomp(2), `linux/seccomp.h`, `linux/filter.h`; the list was held against Docker's default profile.
 */
export function seccompFilter(architecture: SeccompArchitecture): Uint8Array {
  const column = columns[architecture]
  const program: Instruction[] = [
    load(offsetOfArch),
    jumpIfEqual(column.auditArch, 1, 0),
    give(killProcess),
    load(offsetOfNumber),
    // The x32 form of x86-64 carries bit 30 in the number; it and everything newer than the table stop here.
    jumpIfGreaterOrEqual(x32Bit, 0, 1),
    give(killProcess),
    jumpIfGreaterOrEqual(newestKnown + 1, 0, 1),
    give(refuseWith(enosys)),
  ]
  for (const [name, numbers] of Object.entries(refusedCalls)) {
    const number = numbers[column.index]
    if (number !== null) program.push(jumpIfEqual(number, 0, 1), give(refuseWith(name === "clone3" ? enosys : eperm)))
  }
  for (const { numbers, check } of checkedCalls) {
    const number = numbers[column.index]
    program.push(jumpIfEqual(number, 0, check.length), ...check)
  }
  program.push(give(allow))
  return encodeProgram(program)
}

interface Instruction {
  readonly code: number
  readonly ifTrue: number
  readonly ifFalse: number
  readonly value: number
}

function encodeProgram(program: readonly Instruction[]): Uint8Array {
  const writer = new ByteWriter()
  for (const { code, ifTrue, ifFalse, value } of program) writer.u16le(code).u8(ifTrue).u8(ifFalse).u32le(value)
  return writer.take()
}

function load(offset: number): Instruction {
  return { code: 0x20, ifTrue: 0, ifFalse: 0, value: offset } // BPF_LD | BPF_W | BPF_ABS
}

function and(mask: number): Instruction {
  return { code: 0x54, ifTrue: 0, ifFalse: 0, value: mask } // BPF_ALU | BPF_AND | BPF_K
}

function jumpIfEqual(value: number, ifTrue: number, ifFalse: number): Instruction {
  return { code: 0x15, ifTrue, ifFalse, value } // BPF_JMP | BPF_JEQ | BPF_K
}

function jumpIfGreaterOrEqual(value: number, ifTrue: number, ifFalse: number): Instruction {
  return { code: 0x35, ifTrue, ifFalse, value } // BPF_JMP | BPF_JGE | BPF_K
}

function give(action: number): Instruction {
  return { code: 0x06, ifTrue: 0, ifFalse: 0, value: action } // BPF_RET | BPF_K
}

function refuseWith(errno: number): number {
  return 0x00050000 + errno // SECCOMP_RET_ERRNO
}

/** Low word of argument `index`; the kernel cuts `int` arguments to it. */
function loadArgument(index: number): Instruction {
  return load(16 + 8 * index)
}

const killProcess = 0x80000000 // SECCOMP_RET_KILL_PROCESS
const allow = 0x7fff0000 // SECCOMP_RET_ALLOW
const eperm = 1
const enosys = 38
const offsetOfNumber = 0
const offsetOfArch = 4
const x32Bit = 0x40000000

/** set_mempolicy_home_node of Linux 5.17, the newest call that both columns cover. */
const newestKnown = 450

const columns = {
  x64: { index: 0, auditArch: 0xc000003e },
  arm64: { index: 1, auditArch: 0xc00000b7 },
} as const satisfies Record<SeccompArchitecture, { index: 0 | 1; auditArch: number }>

/** Number on x86-64, number on arm64; null where the call does not exist. */
type Numbers = readonly [number | null, number | null]

const refusedCalls: Readonly<Record<string, Numbers>> = {
  // Other processes' memory and state.
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  kcmp: [312, 272],
  pidfd_getfd: [438, 438],
  process_madvise: [440, 440],
  migrate_pages: [256, 238],
  move_pages: [279, 239],
  // Kernel interfaces with a record of holes, none needed to train.
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  io_uring_setup: [425, 425],
  io_uring_enter: [426, 426],
  io_uring_register: [427, 427],
  keyctl: [250, 219],
  add_key: [248, 217],
  request_key: [249, 218],
  modify_ldt: [154, null],
  uselib: [134, null],
  // Keeps pages out of the agent's reach.
  memfd_secret: [447, 447],
  // Mounts and namespaces.
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  unshare: [272, 97],
  setns: [308, 268],
  // Its flags lie in memory, where a filter cannot look; ENOSYS makes libc use clone.
  clone3: [435, 435],
  // Files by handle pass by every path rule.
  name_to_handle_at: [303, 264],
  open_by_handle_at: [304, 265],
  fanotify_init: [300, 262],
  fanotify_mark: [301, 263],
  // The machine itself.
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  create_module: [174, null],
  query_module: [178, null],
  get_kernel_syms: [177, null],
  quotactl: [179, 60],
  quotactl_fd: [443, 443],
  swapon: [167, 224],
  swapoff: [168, 225],
  reboot: [169, 142],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  clock_adjtime: [305, 266],
  adjtimex: [159, 171],
  iopl: [172, null],
  ioperm: [173, null],
  acct: [163, 89],
  syslog: [103, 116],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  vhangup: [153, 58],
  nfsservctl: [180, 42],
  lookup_dcookie: [212, 18],
  _sysctl: [156, null],
  ustat: [136, null],
  sysfs: [139, null],
}

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const namespaceFlags = 0x7e020000
const addressFamilies = { unix: 1, inet: 2, inet6: 10, netlink: 16 } as const
const terminalCommands = { tiocsti: 0x5412, tioclinux: 0x541c } as const

/** Calls that are refused by an argument. Each check is a whole ending of the program: it always returns. */
const checkedCalls: readonly { readonly name: string; readonly numbers: readonly [number, number]; readonly check: readonly Instruction[] }[] = [
  {
    // UNIX and internet sockets inside the job's own empty network, and routing netlink, by which libraries list interfaces. AF_VSOCK would reach
    // the hypervisor past the network namespace; AF_ALG, AF_PACKET and the rest have no use.
    name: "socket",
    numbers: [41, 198],
    check: [
      loadArgument(0),
      jumpIfEqual(addressFamilies.unix, 5, 0),
      jumpIfEqual(addressFamilies.inet, 4, 0),
      jumpIfEqual(addressFamilies.inet6, 3, 0),
      jumpIfEqual(addressFamilies.netlink, 0, 3),
      loadArgument(2),
      jumpIfEqual(0, 0, 1),
      give(allow),
      give(refuseWith(eperm)),
    ],
  },
  {
    name: "socketpair",
    numbers: [53, 199],
    check: [loadArgument(0), jumpIfEqual(addressFamilies.unix, 0, 1), give(allow), give(refuseWith(eperm))],
  },
  {
    name: "clone",
    numbers: [56, 220],
    check: [loadArgument(0), and(namespaceFlags), jumpIfEqual(0, 0, 1), give(allow), give(refuseWith(eperm))],
  },
  {
    // Pushing characters into a terminal's input.
    name: "ioctl",
    numbers: [16, 29],
    check: [
      loadArgument(1),
      jumpIfEqual(terminalCommands.tiocsti, 2, 0),
      jumpIfEqual(terminalCommands.tioclinux, 1, 0),
      give(allow),
      give(refuseWith(eperm)),
    ],
  },
  {
    // Only the question (0xffffffff) and the plain form (0): the others weaken address randomization or executable-page rules.
    name: "personality",
    numbers: [135, 92],
    check: [loadArgument(0), jumpIfEqual(0, 1, 0), jumpIfEqual(0xffffffff, 0, 1), give(allow), give(refuseWith(eperm))],
  },
]
