/** Units for systemd, as text: what a service may do is only what it needs. Directives are those of systemd.exec(5) of version 252 (Debian 12). */

export interface UnitCommand {
  readonly description: string
  /** Program and arguments; each one argument, whatever it holds. */
  readonly command: readonly string[]
  /** Folders and files that the service writes to, absolute. */
  readonly writable: readonly string[]
}

export interface ManagerUnit extends UnitCommand {
  readonly user: string
  /** Devices that it opens, e.g. `/dev/tpmrm0`. */
  readonly devices: readonly string[]
  /** It makes its evidence through configfs, which is below /sys and root's. */
  readonly writesConfigfs: boolean
  /** It listens on a port below 1024. */
  readonly bindsLowPort: boolean
  /** SIGHUP opens its log anew; without a log it would end it. */
  readonly reopensLog: boolean
}

/**
 * An argument of `ExecStart=`: in quotes where it has to be, with `%` and `$` as themselves (systemd.service(5), "Command lines").
 * @throws {RangeError} for control characters, which no unit can hold in one line
 */
export function quoteArgument(text: string): string {
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f]/.test(text)) throw new RangeError("control characters cannot stand in a unit")
  const escaped = text.replaceAll("%", "%%").replaceAll("$", "$$$$")
  return /^[A-Za-z0-9_@%+=:,./$-]+$/.test(escaped) && escaped !== "" ? escaped : `"${escaped.replaceAll(/["\\]/g, "\\$&")}"`
}

/** A path in a list of paths: `%` as itself, quoted where it holds a blank. @throws {RangeError} */
function quotePath(path: string): string {
  return quoteArgument(path).replaceAll("$$", "$")
}

function unitOf(unit: UnitCommand, after: string, service: readonly string[]): string {
  return [
    "[Unit]",
    `Description=${unit.description.replaceAll("%", "%%")}`,
    "Wants=network-online.target",
    `After=network-online.target ${after}`,
    "",
    "[Service]",
    "Type=exec",
    `ExecStart=${unit.command.map(quoteArgument).join(" ")}`,
    "# Wrong use, a refusal and a malformed file do not mend themselves.",
    "RestartPreventExitStatus=2 10 20 30",
    "TimeoutStopSec=90",
    "UMask=0077",
    "# Keys are in memory.",
    "LimitCORE=0",
    "LimitNOFILE=65536",
    ...service,
    "",
    "[Install]",
    "WantedBy=multi-user.target",
    "",
  ].join("\n")
}

const common = [
  "NoNewPrivileges=yes",
  "ProtectKernelModules=yes",
  "ProtectKernelLogs=yes",
  "ProtectClock=yes",
  "ProtectHostname=yes",
  "RestrictRealtime=yes",
  "RestrictSUIDSGID=yes",
  "LockPersonality=yes",
  "SystemCallArchitectures=native",
] as const

/** A manager as a user of its own that reads the system, writes its folders, and reaches the network. @throws {RangeError} */
export function managerUnit(unit: ManagerUnit): string {
  const { user, devices, writesConfigfs, bindsLowPort, reopensLog, writable } = unit
  const capabilities = [...(bindsLowPort ? ["CAP_NET_BIND_SERVICE"] : []), ...(writesConfigfs ? ["CAP_DAC_OVERRIDE"] : [])].join(" ")
  // In a /tmp of its own a service does not find what lies in everybody's.
  const isBelowTmp = [...unit.command, ...writable].some((word) => /^\/(?:var\/)?tmp\//.test(word))
  return unitOf(unit, "time-sync.target", [
    ...(reopensLog ? ["ExecReload=/bin/kill -HUP $MAINPID"] : []),
    "Restart=on-failure",
    "RestartSec=5",
    `User=${user}`,
    ...(devices.some((device) => device.includes("tpm")) ? ["# Group that may use the TPM on Debian and Ubuntu.", "SupplementaryGroups=tss"] : []),
    ...(writesConfigfs ? ["# configfs-tsm makes the evidence; its entries are root's, and below /sys."] : ["ProtectKernelTunables=yes"]),
    ...(capabilities === "" ? [] : [`AmbientCapabilities=${capabilities}`]),
    `CapabilityBoundingSet=${capabilities}`,
    ...common,
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    `PrivateTmp=${isBelowTmp ? "no" : "yes"}`,
    `# They have to be there before the first start: install -d -m 0700 -o ${user} ${writable.map(quotePath).join(" ")}`,
    `ReadWritePaths=${writable.map(quotePath).join(" ")}`,
    ...(devices.length === 0 ? ["PrivateDevices=yes"] : ["DevicePolicy=closed", ...devices.map((device) => `DeviceAllow=${device} rw`)]),
    "ProtectControlGroups=yes",
    "ProtectProc=invisible",
    "ProcSubset=all",
    "PrivateUsers=" + (devices.length === 0 && !writesConfigfs && !bindsLowPort ? "yes" : "no"),
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "SystemCallErrorNumber=EPERM",
    "# MemoryDenyWriteExecute= is left out: V8 makes machine code as it runs.",
  ])
}

/** An agent: root, for it reads the TPM and the measurement lists, and makes sandboxes with mounts and namespaces of their own. @throws {RangeError} */
export function agentUnit(unit: UnitCommand): string {
  return unitOf(unit, "time-sync.target", [
    "Restart=always",
    "RestartSec=10",
    "# The agent ends its jobs itself and wipes what they used.",
    "KillMode=mixed",
    ...common,
    "ProtectSystem=full",
    "PrivateTmp=yes",
    ...(unit.writable.length === 0 ? [] : [`ReadWritePaths=${unit.writable.map(quotePath).join(" ")}`]),
    "# Namespaces, mounts and devices are what sandboxes are made of: no RestrictNamespaces=, PrivateDevices= or ProtectControlGroups= here.",
  ])
}
