import assert from "node:assert/strict"
import { test } from "node:test"
import { isDangerousVariable } from "./environment.ts"
import { isWithin, pathFault } from "./paths.ts"
import { tableText } from "./table.ts"

const good = ["/opt/ml/input/data/a", "/data", "/srv/x.y_z-1", "/mnt/..a", "/usrlocal", "/opt/perun2", "/opt/ml"]
const bad = [
  "",
  "opt/ml",
  "/",
  "/opt",
  "/opt/perun",
  "/opt/perun/src",
  "/opt/ml/",
  "/opt//ml",
  "/opt/ml/.",
  "/opt/./ml",
  "/opt/ml/..",
  "/opt/../etc",
  "/opt/m l",
  "/opt/m l/x",
  "/opt/é/x",
  "x/opt/ml",
  "/opt/ml\n",
  "/opt/é",
  "/opt/a:b",
  ...["bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var"].flatMap(
    (name) => [`/${name}`, `/${name}/x`],
  ),
]

test("pathFault() accepts plain folders of the job's own", () => {
  for (const path of good) assert.equal(pathFault(path), undefined, path)
})

test("pathFault() refuses all others", () => {
  for (const path of bad) assert.notEqual(pathFault(path), undefined, path)
})

test("pathFault() says why", () => {
  assert.equal(pathFault("opt"), "the path is not absolute")
  assert.ok(pathFault("/opt/ml/")?.includes("shortest"))
  assert.ok(pathFault("/opt/a:b")?.includes("ASCII"))
  assert.ok(pathFault("/usr/x")?.includes("lies in the system's own /usr"))
  assert.ok(pathFault("/opt")?.includes("hide the system's own /opt/perun"))
})

test("isWithin() knows a folder from one that only begins with its name", () => {
  assert.equal(isWithin("/a/b", "/a"), true)
  assert.equal(isWithin("/a", "/a"), true)
  assert.equal(isWithin("/ab", "/a"), false)
  assert.equal(isWithin("/a", "/a/b"), false)
})

const dangerous =
  "LD_PRELOAD LD_LIBRARY_PATH DYLD_INSERT_LIBRARIES PYTHONPATH PYTHONHOME PYTHONSTARTUP NODE_OPTIONS NODE_PATH NPM_CONFIG DENO_DIR BUN_X PERL5LIB RUBYOPT GEM_PATH LUA_PATH JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS _JAVA_OPTIONS MAVEN_OPTS GUILE_LOAD_PATH TCLLIBPATH R_PROFILE JULIA_LOAD_PATH GIT_SSH SSH_ASKPASS GLIBC_TUNABLES MALLOC_CHECK_ GCONV_PATH OPENSSL_CONF SSL_CERT_FILE BASH_ENV ASAN_OPTIONS TSAN_OPTIONS UBSAN_OPTIONS LSAN_OPTIONS CUDA_INJECTION64_PATH NSIGHT_X NCCL_NET_PLUGIN TORCH_EXTENSIONS_DIR TRITON_CACHE_DIR OMPI_MCA_x PERUN_MANAGER PATH ENV IFS PS4 SHELL SHELLOPTS BASHOPTS PROMPT_COMMAND CDPATH HOME TMPDIR EDITOR VISUAL PAGER BROWSER CLASSPATH LOCPATH NLSPATH TERMINFO TERMCAP HOSTALIASES LOCALDOMAIN RES_OPTIONS RESOLV_HOST_CONF GETCONF_DIR NIS_PATH TZDIR VIRTUAL_ENV CC CXX".split(
    " ",
  )

test("isDangerousVariable() knows what loads code, in any case", () => {
  for (const name of dangerous) {
    assert.equal(isDangerousVariable(name), true, name)
    assert.equal(isDangerousVariable(name.toLowerCase()), true, name)
  }
})

test("isDangerousVariable() lets a job's own settings be", () => {
  for (const name of ["EPOCHS", "SEED", "OMP_NUM_THREADS", "PATHS", "MY_PATH", "XLD_PRELOAD", "LANG", "TZ", "CUDA_VISIBLE_DEVICES"])
    assert.equal(isDangerousVariable(name), false, name)
})

test("tableText() pads columns to their widest cell", () => {
  assert.equal(tableText(["a", "long", "c"], [["wide", "b", "d"], ["x"]]), "a     long  c\nwide  b     d\nx")
})
