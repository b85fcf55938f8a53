import assert from "node:assert/strict"
import { test } from "node:test"
import { commandLineFindings } from "./appraise-command-line.ts"
import { commandLine, hexOf, sealedParameters, verityRootHash } from "./fixtures.testing.ts"
import type { VerityDisk } from "./reference.ts"

const disks: readonly VerityDisk[] = [{ parameter: "roothash", rootHash: verityRootHash }]

function codes(text: string, verity = disks, pcr = 9): readonly string[] {
  return commandLineFindings({ pcr, text }, verity).map(({ code }) => code)
}

test("commandLineFindings() finds nothing on a line that establishes every fact", () => {
  assert.deepEqual(codes(commandLine), [])
})

const demanded: readonly (readonly [string, string, readonly string[]])[] = [
  [
    "lockdown=confidentiality",
    "lockdown-not-confidentiality",
    ["Confidentiality", "CONFIDENTIALITY", "integrity", "none", "", "confidentiality,integrity"],
  ],
  ["module.sig_enforce=1", "module-signatures-not-enforced", ["0", "n", "Y", ""]],
  ["intel_iommu=on", "iommu-not-strict", ["off", "ON", "on,igfx_off", "sm_on,off", "on,tboot_noforce", "1"]],
  ["amd_iommu=force_isolation", "iommu-not-strict", ["off", "force_isolation,off", "fullflush", "on"]],
  ["iommu.passthrough=0", "iommu-not-strict", ["1", "y", "off"]],
  ["iommu.strict=1", "iommu-not-strict", ["0", "n", "y"]],
]

for (const [parameter, code, others] of demanded) {
  const [name] = parameter.split("=")
  test(`commandLineFindings() demands ${parameter}, exactly, as often as it is there`, () => {
    assert.deepEqual(codes(commandLine.replace(`${parameter} `, "")), [code])
    assert.deepEqual(codes(commandLine.replace(parameter, String(name))), [code])
    for (const value of others) {
      assert.deepEqual(codes(commandLine.replace(parameter, `${name}=${value}`)), [code], value)
      assert.deepEqual(codes(`${commandLine} ${name}=${value}`), [code], value)
    }
    assert.deepEqual(codes(`${commandLine} ${parameter}`), [])
  })

  test(`commandLineFindings() does not count ${parameter} behind -- or inside quotes`, () => {
    const without = commandLine.replace(`${parameter} `, "")
    assert.deepEqual(codes(`${without} -- ${parameter}`), [code, "unknown-boot-parameter"])
    assert.deepEqual(codes(`${without} "x ${parameter}"`), [code, "unknown-boot-parameter"])
    assert.deepEqual(codes(`${without} console="ttyS0 ${parameter}"`), [code, "unknown-boot-parameter"])
  })
}

test("commandLineFindings() takes the kernel's other spellings of a demanded parameter for the same", () => {
  assert.deepEqual(codes(commandLine.replace("module.sig_enforce=1", "module.sig-enforce=1")), [])
  assert.deepEqual(codes(`${commandLine} module.sig-enforce=0`), ["module-signatures-not-enforced"])
  assert.deepEqual(codes(commandLine.replace("intel_iommu=on", "intel_iommu=on,sm_on")), [])
  assert.deepEqual(codes(commandLine.replace("lockdown=confidentiality", '"lockdown=confidentiality"')), [])
})

test("commandLineFindings() wants the root hash once, in the parameter that the loader reads", () => {
  const hash = `roothash=${verityRootHash}`
  const bad = "verity-root-not-measured"
  assert.deepEqual(codes(commandLine.replace(`${hash} `, "")), [bad])
  assert.deepEqual(codes(commandLine.replace(verityRootHash, hexOf("other"))), [bad])
  assert.deepEqual(codes(commandLine.replace(verityRootHash, verityRootHash.toUpperCase())), [bad])
  assert.deepEqual(codes(commandLine.replace(hash, `roothash=x${verityRootHash}`)), [bad])
  assert.deepEqual(codes(commandLine.replace(hash, `roothash=${hexOf("other")},${verityRootHash}`)), [bad])
  assert.deepEqual(codes(`${commandLine} ${hash}`), [bad])
  assert.deepEqual(codes(`${commandLine} roothash=${hexOf("other")}`), [bad])
  for (const other of [`usrhash=${verityRootHash}`, verityRootHash, `x.roothash=${verityRootHash}`, `root=${verityRootHash}`])
    assert.deepEqual(codes(commandLine.replace(hash, other)), [bad, "unknown-boot-parameter"], other)
  // A loader in user space takes neither the quotes away nor a hyphen for an underscore.
  assert.deepEqual(codes(commandLine.replace(hash, `"${hash}"`)), [bad, "unknown-boot-parameter"])
  const loader = [{ parameter: "my_root", rootHash: verityRootHash }]
  assert.deepEqual(codes(commandLine.replace("roothash", "my_root"), loader), [])
  assert.deepEqual(codes(commandLine.replace("roothash", "my-root"), loader), [bad, "unknown-boot-parameter"])
  assert.deepEqual(codes(commandLine.replace(hash, `roothash=4096,${verityRootHash}`)), [])
  // A number of blocks stands before the hash, never inside it.
  const letter = verityRootHash.search(/[a-f]/) + 1
  const inside = `${verityRootHash.substring(0, letter)}8,${verityRootHash.substring(letter)}`
  assert.deepEqual(codes(commandLine.replace(verityRootHash, inside)), [bad])
  for (const count of ["x8", "0", "-8", ""]) assert.deepEqual(codes(commandLine.replace(hash, `roothash=${count},${verityRootHash}`)), [bad], count)
  // One parameter of user space holds one hash.
  assert.deepEqual(codes(commandLine, [...disks, { parameter: "roothash", rootHash: hexOf("other") }]), [bad])
})

test("commandLineFindings() wants the root hash of every disk", () => {
  const both = [...disks, { parameter: "perun.app", rootHash: hexOf("app") }]
  assert.deepEqual(codes(`${commandLine} perun.app=8,${hexOf("app")}`, both), [])
  assert.deepEqual(codes(commandLine, both), ["verity-root-not-measured"])
  assert.deepEqual(codes(`${commandLine} perun.app=8,${verityRootHash}`, both), ["verity-root-not-measured"])
  assert.deepEqual(codes(`${commandLine} perun.app=8,${hexOf("app")}`), ["unknown-boot-parameter"])
})

test("commandLineFindings() reads the hashes of dm-mod.create from its verity tables, and no other table may stand there", () => {
  const table = (hash: string, rest = ""): string => `root,,,ro,0 8 verity 1 /dev/vda /dev/vdb 4096 4096 1 1 sha256 ${hash} 00${rest}`
  const [one, two] = [hexOf("a"), hexOf("b")]
  const mapped = (hashes: readonly string[]): readonly VerityDisk[] => hashes.map((rootHash) => ({ parameter: "dm-mod.create", rootHash }))
  const judge = (value: string, hashes: readonly string[]): readonly string[] => codes(`${sealedParameters} dm-mod.create="${value}"`, mapped(hashes))
  assert.deepEqual(judge(table(one), [one]), [])
  assert.deepEqual(judge(table(one, " 1 panic_on_corruption"), [one]), [])
  const large = `root-1,70657275-6e00-4000-8000-000000000001,12,ro,0 819200 verity 1 /dev/vda /dev/vdb 4096 4096 102400 102400 sha256 ${one} -`
  assert.deepEqual(judge(large, [one]), [])
  assert.deepEqual(judge(`${table(one)};${table(two)}`, [two, one]), [])
  for (const [value, hashes] of [
    [table(one), [two]],
    [table(one), [one, two]],
    [`${table(one)};${table(one)}`, [one, two]],
    [`${table(one)};${table(two)}`, [one]],
    [`${table(one)};x,,,rw,0 8 linear /dev/vdc 0`, [one]],
    [table(one, " 1 ignore_corruption"), [one]],
    [table(one).replace(",ro,", ",rw,"), [one]],
    [table(one).replace("verity 1", "linear 1"), [one]],
    [`${table(one)},8 8 linear /dev/vdc 0`, [one]],
    [`rw ${table(one)}`, [one]],
    [table(one).replace("root,,,", "root,x,,"), [one]],
    [table(one).replace("root,,,", "root,,x,"), [one]],
    [table(one).replace("0 8 verity", "0 x verity"), [one]],
    [one, [one]],
  ] as const)
    assert.deepEqual(judge(value, hashes), ["verity-root-not-measured"], value)
})

/** Each would undo something or let somebody in; what the list of harmless ones does not have is unknown. */
const refused =
  "init=/bin/sh rdinit=/bin/sh single s S 1 3 emergency rescue -b break break=mount debug-shell rd.break rd.shell rd.systemd.unit=x systemd.unit=x systemd.run=/x " +
  "systemd.debug_shell systemd.debug-shell=1 systemd.setenv=A=b systemd.mask=x systemd.set_credential=x systemd.verity=no systemd.verity_root_options=ignore-corruption " +
  "systemd.log_target=console rd.systemd.verity=0 lsm=yama security=none selinux=0 apparmor=0 ima=off ima_policy=none ima_policy=tcb|none ima_tcb ima_hash=sha1 " +
  "ima_hash=md5 ima_template=ima ima_template_fmt=d|n ima_canonical_fmt ima_appraise=off ima_appraise=log ima_appraise=fix evm=fix integrity_audit=1 " +
  "root=/dev/sda root=LABEL=x root=/dev/mapper/other rootfstype=nfs rw initcall_blacklist=init_ima module_blacklist=x modprobe.blacklist=x sysctl.kernel.yama.ptrace_scope=0 " +
  "tpm.suspend_pcr=1 tpm_tis.force=1 tpm_tis.interrupts=0 efi=noruntime efi=nosoftreserve efi_fake_mem=1G@0:1 acpi_rsdp=1 acpi=off acpi.ec_no_wakeup=1 memmap=1G mem=1G iomem=relaxed " +
  "loglevel=44 loglevel=x4 panic=x1 panic=1x panic=12345 panic=-- console=xttyS0 console=ttyS0,x console=ttyS0,9600,x initrd=a:b initrd=:a initrd=a: ima_policy=xtcb ima_policy=tcb|x iommu=off iommu=pt iommu=soft iommu=noforce iommu=force,pt nokaslr norandmaps slub_debug=FZ init_on_alloc=0 init_on_free=0 mitigations=off mitigations=auto,off pti=off nopti nosmep " +
  "nosmap nospectre_v1 nospectre_v2 vsyscall=emulate randomize_kstack_offset=0 page_alloc.shuffle=0 crashkernel=1M resume=/dev/x hibernate=x debugfs=on dyndbg=x ftrace=x trace_event=x " +
  "kprobe_event=x kgdboc=ttyS0 kgdbwait sysrq_always_enabled bootconfig earlycon=uart8250 earlyprintk=ttyS0 console=netcon0 console=ttyS0\\x loglevel=8 panic=x " +
  "perun.level=administered perun.root=1 initrd= initrd BOOT_IMAGE=a=b quiet=1 nosmt=off no-such x= = a.b=c"

for (const word of refused.split(" "))
  test(`commandLineFindings() refuses ${word}`, () => {
    assert.deepEqual(codes(`${commandLine} ${word}`), ["unknown-boot-parameter"])
  })

test("commandLineFindings() accepts what is harmless, in its harmless forms", () => {
  const words =
    "console=ttyS0 console=ttyS1,115200n8 console=tty0 console=hvc0 console=null quiet loglevel=4 panic=-1 oops=panic panic_on_warn nowatchdog no_timer_check " +
    "cryptomgr.notests BOOT_IMAGE=(hd0,gpt2)/vmlinuz-6.1.0-56 initrd=initrd initrd=\\EFI\\initrd.img root=/dev/mapper/root rootfstype=erofs rootwait ro perun.level=sealed ima_policy=tcb|critical_data " +
    "ima_policy=appraise_tcb ima_hash=sha384 ima_template=ima-sig ima_appraise=enforce debugfs=off efi=disable_early_pci_dma init_on_alloc=1 init_on_free=1 iommu=force mitigations=auto,nosmt " +
    "nohibernate nosmt nosmt=force page_alloc.shuffle=1 pti=on randomize_kstack_offset=on slab_nomerge vsyscall=none " +
    "panic=0 panic=30 panic=9999 panic=-9999 rootfstype=ext4 rootfstype=squashfs ima_hash=sha256 ima_hash=sha512 ima_template=ima-ng ima_template=ima-ngv2 ima_template=ima-sigv2 " +
    "ima_template=ima-modsig iommu=nopt mitigations=auto pti=auto randomize_kstack_offset=1"
  for (const word of words.split(" ")) assert.deepEqual(codes(`${commandLine} ${word}`), [], word)
})

test("commandLineFindings() takes the kernel's path for what it is only where GRUB writes it", () => {
  assert.deepEqual(codes(`/vmlinuz ${commandLine}`, disks, 8), [])
  assert.deepEqual(codes(`(hd0,gpt2)/vmlinuz ${commandLine}`, disks, 8), [])
  assert.deepEqual(codes(`/vmlinuz ${commandLine}`, disks, 9), ["unknown-boot-parameter"])
  assert.deepEqual(codes(`${commandLine} /vmlinuz`, disks, 8), ["unknown-boot-parameter"])
  for (const word of ["vmlinuz", "x/vmlinuz", "x(hd0)/vmlinuz"])
    assert.deepEqual(codes(`${word} ${commandLine}`, disks, 8), ["unknown-boot-parameter"], word)
  assert.deepEqual(codes(`/vmlinuz=1 ${commandLine}`, disks, 8), ["unknown-boot-parameter"])
})

test("commandLineFindings() refuses a line that the kernel would not read to its end", () => {
  const padded = (length: number): string => `${commandLine}${" ".repeat(length - commandLine.length)}`
  assert.deepEqual(codes(padded(2047)), [])
  assert.deepEqual(codes(padded(2048)), ["command-line-unreadable"])
  for (const character of ["\n", "\r", "\t", "\0", "\u00a0", "\u00e9", "\u007f"])
    assert.deepEqual(codes(`quiet${character}${commandLine}`), ["command-line-unreadable"])
})

test("commandLineFindings() says what stands on the line in place of a fact", () => {
  const found = (text: string): string | undefined => commandLineFindings({ pcr: 9, text }, disks)[0]?.found
  assert.equal(found(commandLine.replace("lockdown=confidentiality", "")), "no lockdown")
  assert.equal(found(commandLine.replace("lockdown=confidentiality", "lockdown lockdown=none")), "lockdown lockdown=none")
  assert.equal(found(`${commandLine} init=/x`), "init=/x")
})
