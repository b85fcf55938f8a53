/**
 * Whether a variable makes a loader, an interpreter, a shell or a library load code, other programs or other settings than those that were measured.
 * Case does not matter, for some libraries look for both forms.
 */
export function isDangerousVariable(name: string): boolean {
  const upper = name.toUpperCase()
  return dangerousNames.has(upper) || dangerousPrefixes.some((prefix) => upper.startsWith(prefix))
}

/** Whether the agent itself tells programs something by a variable: where their files lie, whose home is theirs. A value that one party alone knows must not stand there. */
export function isGivenVariable(name: string): boolean {
  return name.startsWith("SM_") || ["USER", "LOGNAME", "LANG", "PWD"].includes(name)
}

/** Loaders, interpreters, debuggers, and what is Perun's own. */
const dangerousPrefixes = [
  "LD_",
  "DYLD_",
  "PYTHON",
  "NODE_",
  "NPM_",
  "DENO_",
  "BUN_",
  "PERL",
  "RUBY",
  "GEM_",
  "LUA_",
  "JAVA_",
  "JDK_",
  "_JAVA_",
  "MAVEN_",
  "GUILE_",
  "TCL",
  "R_",
  "JULIA_",
  "GIT_",
  "SSH_",
  "GLIBC_",
  "MALLOC_",
  "GCONV_",
  "OPENSSL_",
  "SSL_",
  "BASH_",
  "ASAN_",
  "TSAN_",
  "UBSAN_",
  "LSAN_",
  "CUDA_INJECTION",
  "NSIGHT_",
  "NCCL_",
  "TORCH_EXTENSIONS",
  "TRITON_",
  "OMPI_",
  "PERUN",
] as const

const dangerousNames: ReadonlySet<string> = new Set([
  "PATH",
  "ENV",
  "IFS",
  "PS4",
  "SHELL",
  "SHELLOPTS",
  "BASHOPTS",
  "PROMPT_COMMAND",
  "CDPATH",
  "HOME",
  "TMPDIR",
  "EDITOR",
  "VISUAL",
  "PAGER",
  "BROWSER",
  "CLASSPATH",
  "LOCPATH",
  "NLSPATH",
  "TERMINFO",
  "TERMCAP",
  "HOSTALIASES",
  "LOCALDOMAIN",
  "RES_OPTIONS",
  "RESOLV_HOST_CONF",
  "GETCONF_DIR",
  "NIS_PATH",
  "TZDIR",
  "VIRTUAL_ENV",
  "CC",
  "CXX",
])
