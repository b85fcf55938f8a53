/** The images of the laboratory: what each is made of. Everything in this file is part of an image's cache key. */
export type ImageKind = "small" | "pytorch"

/**
 * `sealed`: verified read-only disks, locked-down kernel, nobody can enter. `administered`: the same system as somebody's ordinary server: no dm-verity, no
 * lockdown, its administrators may run programs of their own, and the IMA list tells which.
 */
export type ImageLevel = "sealed" | "administered"

/** Change this to have every cached base built anew. */
export const recipeVersion = 2

export const suite = "bookworm"

/** Debian packages installed in the root, beside the minimal base. */
export const rootPackages: Readonly<Record<ImageKind, readonly string[]>> = {
  small: ["bubblewrap", "libstdc++6"],
  pytorch: ["bubblewrap", "libstdc++6", "python3-numpy", "python3-sklearn", "python3-torch"],
}

/**
 * Packages that are unpacked beside the root, never installed in it: the kernel as Debian signed it (its modules load under lockdown=confidentiality) and
 * the programs of the initrd.
 */
export const bootPackages = ["linux-image-cloud-amd64", "busybox-static", "dmsetup"] as const

/** Estimated seconds for a base on two cores, for the progress bar only. */
export const estimatedSeconds: Readonly<Record<ImageKind, number>> = { small: 40, pytorch: 150 }

/** Memory of a machine with this image. The firmware's measurements depend on it, so one size for all needs one probe boot; QEMU takes only what is used. */
export const memoryMiB: Readonly<Record<ImageKind, number>> = { small: 2048, pytorch: 2048 }

/** Kernel modules that the initrd loads, dependencies included by the build; afterwards no module can be loaded. */
export const kernelModules = ["virtio_pci", "virtio_blk", "virtio_net", "dm-verity"] as const

/** Paths never unpacked from packages: documentation, and what only compilers read, which come along with PyTorch. */
export const excludedPaths = [
  "/usr/share/doc/*",
  "/usr/share/man/*",
  "/usr/share/info/*",
  "/usr/share/locale/*",
  "/usr/share/lintian/*",
  "/usr/include/*",
  "/usr/lib/gcc/*",
  "/usr/lib/libtorch-test/*",
  "*.a",
]

/**
 * Removed from the root after the packages are set up: ways in (login, getty, su, sulogin), ways to change the machine (apt, dpkg, perl, mkfs, swapon,
 * kexec), caches and what differs from build to build.
 */
export const removedPaths = [
  "boot",
  "etc/apt",
  "etc/cron.d",
  "etc/cron.daily",
  "etc/dpkg",
  "etc/fstab",
  "etc/hostname",
  "etc/init.d",
  "etc/ld.so.cache-",
  "etc/machine-id",
  "etc/pam.d",
  "etc/rc0.d",
  "etc/rc1.d",
  "etc/rc2.d",
  "etc/rc3.d",
  "etc/rc4.d",
  "etc/rc5.d",
  "etc/rc6.d",
  "etc/rcS.d",
  "etc/resolv.conf",
  "etc/systemd",
  "etc/udev",
  "lib/init",
  "usr/bin/apt",
  "usr/bin/apt-cache",
  "usr/bin/apt-cdrom",
  "usr/bin/apt-config",
  "usr/bin/apt-get",
  "usr/bin/apt-key",
  "usr/bin/apt-mark",
  "usr/bin/chage",
  "usr/bin/chfn",
  "usr/bin/chsh",
  "usr/bin/dpkg",
  "usr/bin/dpkg-deb",
  "usr/bin/dpkg-divert",
  "usr/bin/dpkg-maintscript-helper",
  "usr/bin/dpkg-query",
  "usr/bin/dpkg-realpath",
  "usr/bin/dpkg-split",
  "usr/bin/dpkg-statoverride",
  "usr/bin/dpkg-trigger",
  "usr/bin/expiry",
  "usr/bin/gpasswd",
  "usr/bin/login",
  "usr/bin/newgrp",
  "usr/bin/passwd",
  "usr/bin/perl",
  "usr/bin/perl5.36.0",
  "usr/bin/script",
  "usr/bin/scriptlive",
  "usr/bin/scriptreplay",
  "usr/bin/sg",
  "usr/bin/su",
  "usr/lib/apt",
  "usr/lib/dpkg",
  "usr/lib/init",
  "usr/lib/lsb",
  "usr/lib/modules",
  "usr/lib/systemd",
  "usr/lib/udev",
  "usr/lib/python3.11/config-3.11-x86_64-linux-gnu",
  "usr/lib/x86_64-linux-gnu/perl",
  "usr/lib/x86_64-linux-gnu/perl-base",
  "usr/sbin/agetty",
  "usr/sbin/chpasswd",
  "usr/sbin/dpkg-preconfigure",
  "usr/sbin/dpkg-reconfigure",
  "usr/sbin/fsfreeze",
  "usr/sbin/getty",
  "usr/sbin/groupadd",
  "usr/sbin/groupdel",
  "usr/sbin/groupmod",
  "usr/sbin/kexec",
  "usr/sbin/mkswap",
  "usr/sbin/newusers",
  "usr/sbin/runuser",
  "usr/sbin/start-stop-daemon",
  "usr/sbin/sulogin",
  "usr/sbin/swapoff",
  "usr/sbin/swapon",
  "usr/sbin/unix_chkpwd",
  "usr/sbin/useradd",
  "usr/sbin/userdel",
  "usr/sbin/usermod",
  "usr/sbin/vigr",
  "usr/sbin/vipw",
  "usr/share/bash-completion",
  "usr/share/debconf",
  "usr/share/doc",
  "usr/share/info",
  "usr/share/locale",
  "usr/share/man",
  "usr/share/perl",
  "usr/share/perl5",
  "usr/share/zoneinfo",
  "var/backups",
  "var/cache",
  "var/lib/apt",
  "var/lib/dpkg",
  "var/lib/pam",
  "var/lib/systemd",
  "var/log",
] as const

/** Empty folders that the guest mounts something on. */
export const mountPoints = ["dev", "mnt", "opt/perun", "proc", "run", "sys", "tmp", "usr/lib/perun", "var/tmp", "var/log", "var/cache"] as const

/** Shared libraries of dmsetup in the initrd, from the same Debian packages as the root's. */
export const initrdLibraries = [
  "ld-linux-x86-64.so.2",
  "libc.so.6",
  "libdevmapper.so.1.02.1",
  "libm.so.6",
  "libpcre2-8.so.0",
  "libselinux.so.1",
  "libudev.so.1",
] as const

/** Kernel settings that the initrd writes before anything of the root runs. */
export const kernelSettings: Readonly<Record<string, string>> = {
  "fs/protected_fifos": "2",
  "fs/protected_hardlinks": "1",
  "fs/protected_regular": "2",
  "fs/protected_symlinks": "1",
  "fs/suid_dumpable": "0",
  "kernel/core_pattern": "|/bin/false",
  "kernel/dmesg_restrict": "1",
  "kernel/kexec_load_disabled": "1",
  "kernel/kptr_restrict": "2",
  "kernel/perf_event_paranoid": "3",
  "kernel/sysrq": "0",
  "kernel/unprivileged_bpf_disabled": "1",
  "kernel/yama/ptrace_scope": "3",
  "net/ipv6/conf/all/disable_ipv6": "1",
  "vm/swappiness": "0",
  // Last: nothing after it can load a module.
  "kernel/modules_disabled": "1",
}

/** File systems' names, fixed so that builds agree and the IMA policy can name them. */
export const rootUuid = "70657275-6e00-4000-8000-000000000001"
export const appUuid = "70657275-6e00-4000-8000-000000000002"

/** Salt of the verity trees, 32 bytes: fixed, because the data's digest must not depend on the build. */
export const veritySalt = "706572756e000000000000000000000000000000000000000000000000000000"

/** Time stamp of every file in an image: 2026-01-01T00:00:00Z, in seconds. */
export const imageEpochSeconds = 1_767_225_600

/** Where the guest finds things. */
export const guestPaths = {
  node: "/usr/lib/perun/node",
  app: "/opt/perun",
  agent: "/opt/perun/src/agent/main.js",
  init: "/opt/perun/guest/init",
} as const

/** Virtio serial numbers by which the guest knows its disks. */
export const diskSerials = { root: "perun-root", app: "perun-app", config: "perun-config", maintenance: "perun-maintenance" } as const
