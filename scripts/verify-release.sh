#!/bin/sh
# verify-release.sh DIR ALLOWED_SIGNERS: whether everything in DIR is what somebody listed in ALLOWED_SIGNERS (ssh-keygen(1)) has signed as a release of Perun.
# Take it and ALLOWED_SIGNERS from somewhere else than DIR: what lies in DIR says nothing before it is verified.
set -eu
if [ $# -ne 2 ]; then
  echo "usage: verify-release.sh DIR ALLOWED_SIGNERS" >&2
  exit 2
fi
fail() {
  echo "verify-release: $1" >&2
  exit 10
}
signers=$(cd "$(dirname "$2")" 2>/dev/null && pwd)/$(basename "$2")
[ -f "$signers" ] || fail "$2: no such file"
cd "$1" || exit 40
[ -f SHA256SUMS ] || fail "SHA256SUMS is missing"
[ -f SHA256SUMS.sig ] || fail "SHA256SUMS.sig is missing: the release is not signed"
signer=$(ssh-keygen -Y find-principals -f "$signers" -s SHA256SUMS.sig 2>/dev/null | head -n 1) || signer=
[ -n "$signer" ] || fail "SHA256SUMS is not signed by anybody in $signers"
ssh-keygen -q -Y verify -f "$signers" -I "$signer" -n perun-release -s SHA256SUMS.sig <SHA256SUMS >/dev/null 2>&1 ||
  fail "the signature over SHA256SUMS is not good"
# Nothing that is not listed, and no list with anything but plain names.
! grep -Evq '^[0-9a-f]{64}  [A-Za-z0-9][A-Za-z0-9._-]*$' SHA256SUMS || fail "SHA256SUMS has lines of another form"
for file in * .[!.]* ..?*; do
  [ -e "$file" ] || [ -L "$file" ] || continue
  case $file in SHA256SUMS | SHA256SUMS.sig) continue ;; esac
  [ -f "$file" ] && [ ! -L "$file" ] || fail "$file is no plain file"
  cut -c 67- SHA256SUMS | grep -Fqx -e "$file" || fail "$file is not listed in SHA256SUMS"
done
sha256sum --check --strict --quiet SHA256SUMS >/dev/null 2>&1 ||
  fail "$(sha256sum --check --strict --quiet SHA256SUMS 2>&1 | head -n 1)"
echo "good: $(wc -l <SHA256SUMS) files, signed by $signer"
