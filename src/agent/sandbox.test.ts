import assert from "node:assert/strict"
import { noSandbox } from "./testing/sandbox-possible.testing.ts"
import { spawn } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { bubblewrapOptions, startSandbox, type JobEnd, type SandboxLimits, type SandboxPlan } from "./sandbox.ts"
import { Scratch } from "./scratch.ts"
import { seccompFilter } from "./seccomp.ts"

const user = { uid: 4711, gid: 4711 }
const plan: SandboxPlan = {
  command: ["python3", "train.py"],
  workingDirectory: "/opt/ml/code",
  environment: { PATH: "/usr/bin:/bin" },
  user,
  inputs: [{ source: "/run/perun/scratch/inputs/records", target: "/opt/ml/input/data/a" }],
  outputs: [{ source: "/run/perun/scratch/out", target: "/opt/ml" }],
}

test("bubblewrapOptions() takes every namespace, every capability and the environment away", () => {
  const args = bubblewrapOptions(plan, { seccomp: 3, status: 4 })
  for (const flag of ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"])
    assert.ok(args.includes(flag), flag)
  for (const flag of ["--die-with-parent", "--new-session", "--clearenv"]) assert.ok(args.includes(flag), flag)
  assert.equal(args[args.indexOf("--cap-drop") + 1], "ALL")
  assert.ok(!args.includes("python3"), "the command is no option")
})

test("bubblewrapOptions() mounts from the outside in, inputs read-only", () => {
  const args = bubblewrapOptions(plan, { seccomp: 3, status: 4 })
  const output = args.indexOf("/opt/ml")
  const input = args.indexOf("/opt/ml/input/data/a")
  assert.ok(output < input)
  assert.equal(args[output - 2], "--bind")
  assert.equal(args[input - 2], "--ro-bind")
  assert.ok(!args.some((word) => word === "/sys" || word === "/run" || word === "/var" || word === "--dev-bind"))
})

describe("a job in the sandbox", { skip: noSandbox, concurrency: 1 }, () => {
  let base: string
  let scratch: Scratch
  let input: string
  let output: string
  let temporary: string
  let filter: string

  before(async () => {
    base = await mkdtemp("/tmp/perun-sandbox-")
    scratch = await Scratch.create(base, 8_000_000)
    input = await scratch.folder("inputs", "records")
    await writeFile(join(input, "table.csv"), "a,b\n1,2\n")
    await scratch.giveForReading(input, user)
    output = await scratch.area("output", 1_000_000, user)
    temporary = await scratch.area("tmp", 1_000_000, user)
    filter = join(scratch.path, "filter")
    await writeFile(filter, seccompFilter(process.arch === "arm64" ? "arm64" : "x64"))
  })
  after(async () => {
    await scratch.wipe()
    await rm(base, { recursive: true })
  })

  async function run(command: readonly string[], limits: Partial<SandboxLimits> = {}, during?: (kill: () => void) => void): Promise<JobEnd> {
    const job = await startSandbox(
      {
        command,
        workingDirectory: "/opt/ml/input/data/a",
        environment: { PATH: "/usr/bin:/bin", GREETING: "hello" },
        user,
        inputs: [{ source: input, target: "/opt/ml/input/data/a" }],
        outputs: [
          { source: output, target: "/opt/ml/model" },
          { source: temporary, target: "/tmp" },
        ],
      },
      { memoryBytes: 500_000_000, wallSeconds: 20, maxProcesses: 64, captureBytes: 100_000, ...limits },
      filter,
    )
    during?.(() => job.kill("stopped"))
    return job.ended
  }

  /** Runs Python statements; they fail the test by an exception. */
  async function python(script: string, limits?: Partial<SandboxLimits>): Promise<JobEnd> {
    return run(["python3", "-c", preamble + script], limits)
  }

  async function passes(script: string): Promise<void> {
    const end = await python(script)
    assert.deepEqual([end.reason, end.exitCode], ["exit", 0], Buffer.from(end.stderr).toString())
  }

  test("startSandbox() runs the program and reports its exit code and streams", async () => {
    const end = await python("print(open('table.csv').read(), end=''); print('oops', file=sys.stderr); sys.exit(7)")
    assert.deepEqual([end.reason, end.exitCode], ["exit", 7])
    assert.equal(Buffer.from(end.stdout).toString(), "a,b\n1,2\n")
    assert.equal(Buffer.from(end.stderrTail).toString(), "oops\n")
  })

  test("startSandbox() keeps no more of a stream than asked for, and does not block on it", async () => {
    const end = await python("sys.stdout.write('x' * 1_000_000); sys.stderr.write('y' * 1_000_000)", { captureBytes: 1000 })
    assert.equal(end.exitCode, 0)
    assert.equal(end.stdout.length, 1000)
    assert.equal(end.stderr.length, 1000)
    assert.equal(end.stderrTail.length, 65_536)
  })

  test("a job reaches no network, not even the machine's own loopback", async () => {
    const server = createServer((socket) => socket.end("hello"))
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    try {
      await passes(`
for address in [("127.0.0.1", ${port}), ("10.0.2.2", 80), ("192.0.2.1", 80)]:
    refused(lambda: socket.create_connection(address, timeout=2))
assert [name for _, name in socket.if_nameindex()] == ["lo"], socket.if_nameindex()
`)
    } finally {
      server.close()
    }
  })

  test("a job sees nothing of the machine but its measured programs", async () => {
    await passes(`
assert sorted(os.listdir("/")) == sorted(["bin", "dev", "etc", "lib", "lib64", "opt", "proc", "sbin", "tmp", "usr"]), os.listdir("/")
assert os.listdir("/opt") == ["ml"] and sorted(os.listdir("/opt/ml")) == ["input", "model"]
for path in ["/etc/shadow", "/etc/passwd", "/root", "/home", "/run", "/var", "/sys", "/sys/kernel/security", "/boot", "${base}"]:
    assert not os.path.exists(path), path
refused(lambda: open("/proc/1/root/etc/shadow").read())
`)
  })

  test("a job finds no TPM, no attestation device, no disk and no kernel memory", async () => {
    await passes(`
allowed = {"core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero", "console"}
assert set(os.listdir("/dev")) <= allowed, os.listdir("/dev")
for path in ["/dev/tpm0", "/dev/tpmrm0", "/dev/sgx_enclave", "/dev/tdx_guest", "/dev/sev-guest", "/dev/mem", "/dev/kmsg", "/dev/vsock", "/dev/kvm"]:
    assert not os.path.exists(path), path
refused(lambda: open("/proc/kcore", "rb").read(1))
refused(lambda: os.mknod("/tmp/tpm", 0o600 | stat.S_IFCHR, os.makedev(10, 224)))
`)
  })

  test("a job cannot write its inputs, the programs or the root", async () => {
    await passes(`
for path in ["/opt/ml/input/data/a/table.csv", "/opt/ml/input/data/a/new", "/usr/new", "/new", "/etc/new", "/opt/new", "/dev/new", "/usr/bin/python3"]:
    refused(lambda: open(path, "w"))
refused(lambda: os.chmod("/opt/ml/input/data/a/table.csv", 0o777))
refused(lambda: os.unlink("/opt/ml/input/data/a/table.csv"))
`)
    assert.equal(await readFile(join(input, "table.csv"), "utf8"), "a,b\n1,2\n")
  })

  test("a job writes its outputs up to their cap, owned by its own user", async () => {
    await passes(`
open("/opt/ml/model/weights", "wb").write(b"x" * 1000)
refused(lambda: open("/opt/ml/model/large", "wb").write(b"x" * 2_000_000))
os.unlink("/opt/ml/model/large")
`)
    const written = await stat(join(output, "weights"))
    assert.deepEqual([written.size, written.uid, written.gid], [1000, 4711, 4711])
  })

  test("a job executes nothing that it wrote itself", async () => {
    await passes(`
for folder in ["/tmp", "/opt/ml/model"]:
    open(folder + "/tool", "wb").write(open("/usr/bin/true", "rb").read())
    os.chmod(folder + "/tool", 0o700)
    refused(lambda: subprocess.run([folder + "/tool"]))
`)
  })

  test("a job is its own user without groups, capabilities or a way to gain them", async () => {
    await passes(`
assert os.getresuid() == (4711,) * 3 and os.getresgid() == (4711,) * 3 and set(os.getgroups()) <= {4711}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
    assert int(status[name], 16) == 0, name
assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
assert dict(line.split(":", 1) for line in open("/proc/1/status"))["Seccomp"].strip() == "2"
refused(lambda: os.setuid(0))
`)
  })

  test("a job cannot see or signal processes outside", async () => {
    await passes(`
pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
assert len(pids) <= 3, pids
refused(lambda: os.kill(${process.pid}, 0)) if ${process.pid} > 10 else None
`)
  })

  test("a job inherits no environment but the given one", async () => {
    await passes(`assert set(os.environ) - {"PWD", "SHLVL", "_", "LC_CTYPE"} == {"PATH", "GREETING"}, dict(os.environ)`)
  })

  test("a job's refused system calls answer EPERM, newer ones ENOSYS", async () => {
    await passes(`
x64 = platform.machine() == "x86_64"
calls = dict(ptrace=101, bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425, keyctl=250, add_key=248, mount=165, unshare=272, setns=308,
    kexec_load=246, init_module=175, open_by_handle_at=304, process_vm_readv=310, chroot=161, reboot=169, memfd_secret=447)
if x64:
    for name, number in calls.items():
        assert call(number) == errno.EPERM, (name, errno.errorcode.get(call(number)))
    assert call(435) == errno.ENOSYS and call(500) == errno.ENOSYS
    assert call(56, 0x10000000 | 17, 0, 0, 0, 0) == errno.EPERM
for family in [socket.AF_VSOCK, socket.AF_ALG, socket.AF_PACKET]:
    try:
        socket.socket(family, socket.SOCK_STREAM)
    except PermissionError:
        continue
    raise AssertionError(family)
`)
  })

  test("a job leaves no core dump and has few files and processes", async () => {
    await passes(`
import resource
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert resource.getrlimit(resource.RLIMIT_NPROC) == (64, 64)
assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == 4096
assert open("/proc/self/oom_score_adj").read().strip() == "1000"
children = []
try:
    for _ in range(200):
        children.append(subprocess.Popen(["sleep", "30"]))
except OSError:
    pass
assert len(children) < 64
for child in children: child.kill()
`)
  })

  test("startSandbox() ends a job at its wall clock, with everything it started", async () => {
    const marker = `3${process.pid}.5`
    const end = await python(`subprocess.Popen(["setsid", "sleep", "${marker}"]); time.sleep(60)`, { wallSeconds: 1 })
    assert.deepEqual([end.reason, end.exitCode], ["wall-clock", null])
    await passes(`pass`)
    assert.ok(!(await commandLines()).some((line) => line.includes(marker)))
  })

  test("startSandbox() ends a job that takes too much memory", async () => {
    const end = await python(`data = [bytearray(b"x" * 1_000_000) for _ in range(300)]; time.sleep(30)`, { memoryBytes: 100_000_000 })
    assert.equal(end.reason, "memory")
  })

  test("kill() stops a job at once", async () => {
    const end = await run(["sleep", "60"], {}, (kill) => setTimeout(kill, 200))
    assert.equal(end.reason, "stopped")
    assert.ok(end.wallSeconds < 5)
  })

  test("kill() before the job's program runs stops it too", async () => {
    const end = await run(["sleep", "60"], {}, (kill) => kill())
    assert.equal(end.reason, "stopped")
  })

  test("a job dies with its agent", async () => {
    const marker = `4${process.pid}.5`
    const script = join(base, "agent.ts")
    const job = {
      command: ["sh", "-c", `sleep ${marker} & sleep ${marker}`],
      workingDirectory: "/",
      environment: { PATH: "/usr/bin:/bin" },
      user,
      inputs: [],
      outputs: [],
    }
    const limits = { memoryBytes: 500_000_000, wallSeconds: 60, maxProcesses: 64, captureBytes: 0 }
    const module = JSON.stringify(join(import.meta.dirname, "sandbox.ts"))
    await writeFile(
      script,
      `import { startSandbox } from ${module}\nawait startSandbox(${JSON.stringify(job)}, ${JSON.stringify(limits)}, ${JSON.stringify(filter)})\n`,
    )
    const agent = spawn(process.execPath, [script], { stdio: "ignore" })
    const runs = async (): Promise<boolean> => (await commandLines()).some((line) => line.startsWith(`sleep\0${marker}`))
    for (let tries = 0; tries < 200 && !(await runs()); tries++) await sleep(50)
    assert.ok(await runs())
    agent.kill("SIGKILL")
    for (let tries = 0; tries < 100 && (await runs()); tries++) await sleep(50)
    assert.ok(!(await runs()))
  })

  test("startSandbox() tells a program that cannot start from one that fails", async () => {
    assert.equal((await run(["no-such-program"])).reason, "sandbox")
    const killed = await run(["sh", "-c", "kill -9 $$"])
    assert.deepEqual([killed.reason, killed.exitCode], ["exit", 137])
  })
})

async function commandLines(): Promise<string[]> {
  return readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .map((name) => {
      try {
        return readFileSync(`/proc/${name}/cmdline`, "utf8")
      } catch {
        return "" // Ended in the meantime.
      }
    })
}

const preamble = `
import ctypes, errno, os, platform, socket, stat, subprocess, sys, time
def refused(action):
    try:
        action()
    except OSError:
        return
    raise AssertionError("was not refused")
def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    result = libc.syscall(number, *[ctypes.c_long(a) for a in arguments])
    return ctypes.get_errno() if result == -1 else 0
`
