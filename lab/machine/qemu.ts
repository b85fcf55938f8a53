/** A disk of a machine. */
export interface Disk {
  readonly path: string
  /** Virtio serial number, at most 20 characters. */
  readonly serial: string
}

export interface Forward {
  /** Port on this host's 127.0.0.1. */
  readonly host: number
  /** Port in the machine. */
  readonly guest: number
}

/** What a machine is made of; everything but paths is the same for machines of one kind, because the firmware measures some of it. */
export interface QemuPlan {
  readonly accelerator: "kvm" | "tcg"
  readonly firmwareCode: string
  /** A private copy: the firmware writes to it. */
  readonly firmwareVariables: string
  readonly kernel: string
  readonly initrd: string
  readonly commandLine: string
  /** In the order of the guest's names, vda first. */
  readonly disks: readonly Disk[]
  readonly tpmSocket: string
  readonly consolePath: string
  readonly memoryMiB: number
  readonly processors: number
  /** `none`: the machine reaches nothing. `host`: it reaches this host at 10.0.2.2, and what this host reaches. */
  readonly network: "none" | "host"
  readonly forwards: readonly Forward[]
  /** Program and arguments that QEMU starts for each connection of the machine to `channelAddress`, joined to it by standard input and output. */
  readonly channel?: readonly string[]
}

/** Where a machine finds its channel, which no network of the host leads to. QEMU keeps 10.0.2.2 and .3 for itself. */
export const channelAddress = "10.0.2.4:8090"

/** The arguments of qemu-system-x86_64. */
export function qemuArguments(plan: QemuPlan): readonly string[] {
  const forwards = plan.forwards.map(({ host, guest }) => `,hostfwd=tcp:127.0.0.1:${host}-10.0.2.15:${guest}`).join("")
  // Works under restrict=on too. QEMU splits the words as a shell does, and starts no shell.
  const channel = plan.channel === undefined ? "" : `,guestfwd=tcp:${channelAddress}-cmd:${value(plan.channel.map(quoted).join(" "))}`
  return [
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-name", "perun-lab"],
    ...["-machine", "q35,smm=off,vmport=off,hpet=off,i8042=off"],
    ...["-accel", plan.accelerator === "kvm" ? "kvm" : "tcg,thread=multi,tb-size=256"],
    ...["-cpu", plan.accelerator === "kvm" ? "host" : "max"],
    ...["-smp", String(plan.processors), "-m", `${plan.memoryMiB}M`],
    ...["-drive", `if=pflash,format=raw,unit=0,readonly=on,file=${value(plan.firmwareCode)}`],
    ...["-drive", `if=pflash,format=raw,unit=1,file=${value(plan.firmwareVariables)}`],
    // The firmware would try to boot from the network before it gives up on nothing; the kernel is given directly.
    ...["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"],
    ...["-kernel", plan.kernel, "-initrd", plan.initrd, "-append", plan.commandLine],
    ...["-chardev", `socket,id=tpm,path=${value(plan.tpmSocket)}`, "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm"],
    ...["-object", "iothread,id=disks"],
    ...plan.disks.flatMap(diskArguments),
    ...[
      "-netdev",
      `user,id=net,ipv6=off${plan.network === "none" ? ",restrict=on" : ""}${forwards}${channel}`,
      "-device",
      "virtio-net-pci,netdev=net,romfile=",
    ],
    ...["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"],
    ...["-serial", `file:${plan.consolePath}`],
  ]
}

/** A throw-away layer over the image: machines share it, none changes it. */
function diskArguments({ path, serial }: Disk, index: number): readonly string[] {
  return [
    "-drive",
    `if=none,id=disk${index},format=raw,snapshot=on,cache=unsafe,aio=threads,file=${value(path)}`,
    "-device",
    `virtio-blk-pci,drive=disk${index},serial=${serial},iothread=disks,num-queues=2`,
  ]
}

/** A value in QEMU's option syntax, where a comma ends it. */
function value(text: string): string {
  return text.replaceAll(",", ",,")
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", String.raw`'\''`)}'`
}
