import assert from "node:assert/strict"
import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from "node:crypto"
import { createServer } from "node:https"
import type { AddressInfo } from "node:net"
import { after, test } from "node:test"
import { AzureVm } from "../../lab/devices/azure-vm.testing.ts"
import { AmdAuthority, makeRsaKey } from "../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../lab/devices/amd-snp.ts"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeSgxQuote, makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { labSgxRequirement, labSnpRequirement } from "../../lab/devices/guest-files.ts"
import { labTdRequirement, tdRegisters } from "../../lab/devices/td.ts"
import { digestOf } from "../bytes/digest.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { encodeCmwExtension, idPeCmw, type CmwCollection } from "../evidence/cmw.ts"
import { encodeTeeEvidence, type TeeEvidence } from "../evidence/tee/format.ts"
import { supplementedBy, withoutVouchers } from "../evidence/tee/vouchers.ts"
import { makeCertificate, type ExtensionInput } from "../pki/authority.testing.ts"
import { parseCertificateUpTo } from "../pki/certificate.ts"
import { parsePem } from "../pki/der.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { managerReportData, verifyManagerAttestation } from "./manager-attestation.ts"
import {
  certificateReportData,
  encodeManagerCertificate,
  maxManagerCertificateBytes,
  verifyManagerCertificate,
  type CertificateParts,
} from "./manager-certificate.ts"
import { verifyManagerByCertificate } from "./manager-connection.ts"
import { signManagerDescription } from "./manager-description.ts"
import type { ManagerDescription } from "./messages.ts"
import { certificatePem, createTlsIdentity } from "./tls.ts"

const authority = makeLabAuthority({ keys: makeLabKeys(), time: Date.now() })
const measure = (letter: string) => ({ runtime: letter.repeat(96), source: "b".repeat(96), packages: "c".repeat(96) })
const program = measure("a")
const requirement = labTdRequirement(program, authority.root)
const accept: readonly TeeRequirement[] = [{ tdx: requirement }]
const { privateKey } = generateKeyPairSync("ed25519")
const key = sshPublicKeyText(privateKey)
const tls = createTlsIdentity("manager")
const tlsKey = createPrivateKey(tls.privateKeyPem)
const description: ManagerDescription = {
  perun: 1,
  instance: "1".repeat(32),
  key,
  tlsKey: tls.tlsKey,
  depositKey: encodeBase64(new Uint8Array(1216)),
  logKey: key,
  resultKey: "AAAA",
  configuration: digestOf(new Uint8Array(1)),
  vault: { kind: "key-file" },
  evidence: "tdx",
  time: null,
}
const time = Math.floor(Date.now() / 1000) * 1000
const times = { notBefore: time - 60_000, notAfter: time + 3_600_000 }
const supplement = (evidence: TeeEvidence): TeeEvidence => supplementedBy(evidence, authority.tdxCollateral)
const expectation = { accept, time, supplement }

function quoteOver(reportData: Uint8Array, of = program): TeeEvidence {
  const { mrTd, rtmrs } = tdRegisters(of)
  const one = (values: "any" | readonly string[]): string => (values === "any" ? "" : (values[0] ?? ""))
  const report = { mrTd: one(mrTd), rtmrs: [one(rtmrs[0]), one(rtmrs[1]), one(rtmrs[2]), one(rtmrs[3])] as [string, string, string, string] }
  return { kind: "tdx", quote: makeTdxQuote(authority, reportData, { version: 5, body: "1.5", report }) }
}

const goodParts: CertificateParts = {
  ...times,
  manager: signManagerDescription(description, privateKey),
  evidence: quoteOver(certificateReportData(description, times)),
}

const certificate = (change: Partial<CertificateParts> = {}, tlsPrivateKey = tlsKey): Uint8Array =>
  encodeManagerCertificate(tlsPrivateKey, { ...goodParts, ...change })

const verify = (der: Uint8Array, change: Partial<typeof expectation> = {}): ReturnType<typeof verifyManagerCertificate> =>
  verifyManagerCertificate(der, { ...expectation, ...change })

test("verifyManagerCertificate() accepts a certificate whose evidence covers its key, its dates and the description", () => {
  const der = certificate()
  const verified = verify(der)
  assert.deepEqual(verified.description, description)
  assert.deepEqual([verified.accepted.kind, verified.accepted.insecureLaboratory], ["tdx", true])
  assert.deepEqual([verified.notBefore, verified.notAfter], [times.notBefore, times.notAfter])
  // Another program reads the same, and the certificate is small enough for a handshake.
  const read = new X509Certificate(der)
  assert.equal(read.validToDate.getTime(), times.notAfter)
  assert.ok(read.checkPrivateKey(tlsKey) && read.verify(read.publicKey))
  assert.ok(der.length < 20_000, `${der.length} bytes`)
})

const otherKey = sshPublicKeyText(generateKeyPairSync("ed25519").privateKey)
const changed = {
  instance: "2".repeat(32),
  depositKey: encodeBase64(new Uint8Array(1216).fill(1)),
  logKey: otherKey,
  resultKey: "AAAB",
  configuration: digestOf(new Uint8Array(2)),
  vault: { kind: "tpm" },
  evidence: "snp",
} as const satisfies Partial<ManagerDescription>
for (const [field, value] of Object.entries(changed))
  test(`verifyManagerCertificate() refuses a ${field} that the evidence does not cover`, () => {
    const shown = { ...description, [field]: value } as ManagerDescription
    assert.throws(() => verify(certificate({ manager: signManagerDescription(shown, privateKey) })), { code: "wrong-nonce" })
  })

test("verifyManagerCertificate() refuses another identity key, even one that signs for itself", () => {
  const thief = generateKeyPairSync("ed25519").privateKey
  const shown = { ...description, key: sshPublicKeyText(thief) }
  assert.throws(() => verify(certificate({ manager: signManagerDescription(shown, thief) })), { code: "wrong-nonce" })
  assert.throws(() => verify(certificate({ manager: signManagerDescription(shown, privateKey) })), { code: "wrong-manager" })
})

test("verifyManagerCertificate() refuses a relay: the extension of a manager in a certificate over another key", () => {
  const thief = createTlsIdentity("thief")
  const relayed = certificate({}, createPrivateKey(thief.privateKeyPem))
  assert.throws(() => verify(relayed), { code: "wrong-tls-key" })
  const shown = { ...description, tlsKey: thief.tlsKey }
  const manager = signManagerDescription(shown, privateKey)
  assert.throws(() => verify(certificate({ manager }, createPrivateKey(thief.privateKeyPem))), { code: "wrong-nonce" })
})

test("verifyManagerCertificate() refuses a certificate outside its time, one that lives too long and dates that the evidence does not cover", () => {
  assert.throws(() => verify(certificate(), { time: times.notBefore - 1 }), { code: "expired" })
  assert.throws(() => verify(certificate(), { time: times.notAfter + 1 }), { code: "expired" })
  verify(certificate(), { time: times.notAfter })
  assert.throws(() => verify(certificate({ notAfter: times.notAfter + 60_000 })), { code: "wrong-nonce" })
  assert.throws(() => verify(certificate({ notBefore: times.notBefore - 60_000 })), { code: "wrong-nonce" })
  const long = { notBefore: time, notAfter: time + 86_401_000 }
  assert.throws(() => verify(certificate({ ...long, evidence: quoteOver(certificateReportData(description, long)) })), { code: "wrong-certificate" })
})

test("a proof over a nonce does not pass for a certificate's, nor a certificate's for one over a nonce", () => {
  const nonce = "17".repeat(32)
  assert.throws(() => verify(certificate({ evidence: quoteOver(managerReportData(description, nonce)) })), { code: "wrong-nonce" })
  const evidence = encodeTeeEvidence(supplement(goodParts.evidence))
  const answer = { perun: 1, manager: goodParts.manager, evidence } as const
  assert.throws(() => verifyManagerAttestation(answer, { accept, nonce, peerTlsKey: tls.tlsKey, time }), { code: "wrong-nonce" })
})

test("verifyManagerCertificate() tells what differs of a genuine manager that is not accepted", () => {
  const evidence = quoteOver(certificateReportData(description, times), measure("d"))
  assert.throws(() => verify(certificate({ evidence })), { code: "wrong-manager", message: /MRTD: found d{96}, expected a{96}/ })
  assert.throws(() => verify(certificate(), { supplement: (alone) => alone }), { code: "wrong-manager", message: /tee-collateral-missing/ })
  assert.throws(() => verify(certificate(), { accept: [{ tdx: { ...requirement, laboratoryRoots: [] } }] }), { code: "wrong-chain" })
})

const iso = (milliseconds: number): string => new Date(milliseconds).toISOString().replace(".000", "")

/** A certificate over the manager's key with what extensions a test wants. */
function certificateWith(
  extensions: readonly ExtensionInput[] | undefined,
  issuerKey = { privateKey: tlsKey, publicKey: createPublicKey(tlsKey) },
): Uint8Array {
  const owner = { privateKey: tlsKey, publicKey: createPublicKey(tlsKey) }
  const dates = { notBefore: iso(times.notBefore), notAfter: iso(times.notAfter) }
  return makeCertificate({ subject: "perun manager", issuer: "perun manager", key: owner, issuerKey, extensions, ...dates })
}

/** The extension as the manager makes it, and its collection for tests that change it. */
const extension = parseCertificateUpTo(maxManagerCertificateBytes, certificate()).extensions.get(idPeCmw)?.value ?? new Uint8Array(0)
const quoteRecord = {
  type: "application/x.perun.tdx-quote",
  value: goodParts.evidence.kind === "tdx" ? goodParts.evidence.quote : new Uint8Array(0),
  indicator: 4,
}
const managerRecord = { type: "application/x.perun.manager-description+json", value: canonicalJsonBytes(goodParts.manager), indicator: 4 }
const records = { tee: quoteRecord, manager: managerRecord }
const ours = "urn:uuid:4f1f08ea-82f2-4f5d-931c-03a9646ebe1f"

test("verifyManagerCertificate() refuses a certificate that its own key did not sign", () => {
  verify(certificateWith([{ oid: idPeCmw, value: extension }]))
  const other = generateKeyPairSync("ec", { namedCurve: "P-256" })
  assert.throws(() => verify(certificateWith([{ oid: idPeCmw, value: extension }], other)), { code: "wrong-signature" })
})

test("verifyManagerCertificate() refuses a certificate without evidence and one with a critical extension that it does not know", () => {
  assert.throws(() => verify(certificateWith(undefined)), { code: "missing-piece" })
  const [plain = new Uint8Array(0)] = parsePem(createTlsIdentity("manager").certificatePem, "CERTIFICATE")
  assert.throws(() => verify(plain), { name: "EvidenceError" })
  const foreign = { oid: "2.5.29.54", value: Uint8Array.of(2, 1, 0) }
  verify(certificateWith([foreign, { oid: idPeCmw, critical: true, value: extension }]))
  assert.throws(
    () =>
      verify(
        certificateWith([
          { ...foreign, critical: true },
          { oid: idPeCmw, value: extension },
        ]),
      ),
    { code: "wrong-certificate" },
  )
})

test("verifyManagerCertificate() wants exactly the two records, of the types that it knows", () => {
  const of = (collection: CmwCollection): Uint8Array => certificateWith([{ oid: idPeCmw, value: encodeCmwExtension(collection) }])
  verify(of({ type: ours, records }))
  assert.throws(() => verify(of({ type: "urn:example:other", records })), { code: "unsupported" })
  assert.throws(() => verify(of({ type: ours, records: { tee: quoteRecord } })), { code: "missing-piece" })
  assert.throws(() => verify(of({ type: ours, records: { manager: managerRecord } })), { code: "missing-piece" })
  assert.throws(() => verify(of({ type: ours, records: { ...records, more: quoteRecord } })), { code: "surplus-piece" })
  const typed = (type: string): typeof quoteRecord => ({ ...quoteRecord, type })
  assert.throws(() => verify(of({ type: ours, records: { ...records, tee: typed("application/octet-stream") } })), { code: "unsupported" })
  assert.throws(() => verify(of({ type: ours, records: { ...records, manager: { ...managerRecord, type: "application/json" } } })), {
    code: "unsupported",
  })
  for (const name of ["tee", "manager"] as const)
    assert.throws(() => verify(of({ type: ours, records: { ...records, [name]: { ...records[name], indicator: 8 } } })), { code: "unsupported" })
})

test("encodeManagerCertificate() and verifyManagerCertificate() hold one bound", () => {
  assert.throws(() => certificate({ evidence: { kind: "tdx", quote: new Uint8Array(45_000) } }), { name: "EvidenceError", code: "unsupported" })
  assert.throws(() => verify(new Uint8Array(maxManagerCertificateBytes + 1)), { name: "MalformedError", code: "too-large" })
})

test("a certificate carries an SGX quote and a SEV-SNP report alike", async () => {
  const sgxDescription = { ...description, evidence: "sgx" } as const
  const sgx = encodeManagerCertificate(tlsKey, {
    ...times,
    manager: signManagerDescription(sgxDescription, privateKey),
    evidence: { kind: "sgx", quote: makeSgxQuote(authority, certificateReportData(sgxDescription, times)) },
  })
  const bySgx = {
    accept: [{ sgx: labSgxRequirement(authority) }],
    time,
    supplement: (given: TeeEvidence) => supplementedBy(given, authority.sgxCollateral),
  }
  assert.equal(verifyManagerCertificate(sgx, bySgx).accepted.kind, "sgx")

  const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
  const amd = new AmdAuthority("Milan", { ark, ask, asvk: ask })
  const chip = new SnpDevice(amd)
  const snpDescription = { ...description, evidence: "snp" } as const
  const snpTime = Date.parse("2025-06-01T00:00:00Z")
  const snpTimes = { notBefore: snpTime, notAfter: snpTime + 3_600_000 }
  const snp = encodeManagerCertificate(tlsKey, {
    ...snpTimes,
    manager: signManagerDescription(snpDescription, privateKey),
    evidence: { kind: "snp", report: chip.report({ reportData: certificateReportData(snpDescription, snpTimes) }) },
  })
  const { intermediates, ...rest } = chip.endorsements()
  const endorsements = { ...rest, intermediates: [...intermediates, chip.root.certificate] }
  const bySnp = { accept: [{ snp: labSnpRequirement(chip) }], time: snpTime }
  assert.equal(verifyManagerCertificate(snp, { ...bySnp, supplement: (given) => supplementedBy(given, endorsements) }).accepted.kind, "snp")
  assert.throws(() => verifyManagerCertificate(snp, { ...bySnp, supplement: (given) => given }), { code: "missing-piece" })
})

// A server over real TLS that shows the certificate and writes down what it is asked.
const asked: string[] = []
let shown = description
const server = createServer(
  { key: tls.privateKeyPem, cert: certificatePem(certificate()), minVersion: "TLSv1.3", requestCert: true, rejectUnauthorized: false },
  (request, response) => {
    const url = new URL(request.url ?? "/", "https://manager")
    asked.push(`${request.method} ${url.pathname}`)
    const evidence = encodeTeeEvidence(supplement(quoteOver(managerReportData(shown, url.searchParams.get("nonce") ?? ""))))
    response.setHeader("content-type", "application/json")
    response.end(JSON.stringify({ perun: 1, manager: signManagerDescription(shown, privateKey), evidence }))
  },
)
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
after(() => {
  server.closeAllConnections()
  server.close()
})
const url = new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`)
const client = createTlsIdentity("client")

test("verifyManagerByCertificate() judges the certificate of the handshake and sends nothing", async () => {
  const found = await verifyManagerByCertificate(url, accept, client, { now: new Date(time), supplement })
  assert.deepEqual([found.isFresh, found.description.key, asked.length], [false, key, 0])
  const other = [{ tdx: { ...requirement, mrTd: ["e".repeat(96)] } }]
  await assert.rejects(verifyManagerByCertificate(url, other, client, { now: new Date(time), supplement }), { code: "wrong-manager" })
  assert.equal(asked.length, 0)
})

test("verifyManagerByCertificate() takes what vouches from the proof over a nonce, which it verifies, and holds both against each other", async () => {
  const now = new Date(time)
  const found = await verifyManagerByCertificate(url, accept, client, { now })
  assert.deepEqual([found.isFresh, asked], [true, ["GET /v1/attestation"]])
  shown = { ...description, vault: { kind: "tpm" } }
  await assert.rejects(verifyManagerByCertificate(url, accept, client, { now }), { code: "contradicting" })
  shown = { ...description, tlsKey: createTlsIdentity("other").tlsKey }
  await assert.rejects(verifyManagerByCertificate(url, accept, client, { now }), { code: "wrong-tls-key" })
})

const vm = new AzureVm(authority)
const azureDescription = { ...description, evidence: "azure-vtpm" } as const
const azureAccept: readonly TeeRequirement[] = [{ azure: vm.requirement }]
const azureCertificate = (evidence: TeeEvidence): Uint8Array =>
  encodeManagerCertificate(tlsKey, { ...times, manager: signManagerDescription(azureDescription, privateKey), evidence })

test("verifyManagerCertificate() takes a confidential VM of Azure: report, quote and registers in one record, without what vouches for the hardware", () => {
  const evidence = vm.evidence(certificateReportData(azureDescription, times))
  const der = azureCertificate(evidence)
  assert.ok(der.length < maxManagerCertificateBytes / 2, `${der.length} bytes`)
  const expected = { accept: azureAccept, time, supplement }
  assert.equal(verifyManagerCertificate(der, expected).accepted.kind, "azure-vtpm")
  // A signature's length varies by a few bytes; what vouches has thousands.
  assert.ok(Math.abs(azureCertificate(withoutVouchers(evidence)).length - der.length) < 16)
  const bare = { ...expected, supplement: (given: TeeEvidence) => given }
  assert.throws(() => verifyManagerCertificate(der, bare), { code: "wrong-manager", message: /tee-collateral-missing/ })
  // The proof over a nonce is another purpose, and so are other dates.
  const overNonce = vm.evidence(managerReportData(azureDescription, "00".repeat(32)))
  assert.throws(() => verifyManagerCertificate(azureCertificate(overNonce), expected), { code: "wrong-nonce" })
  const otherDates = vm.evidence(certificateReportData(azureDescription, { ...times, notAfter: times.notAfter + 1000 }))
  assert.throws(() => verifyManagerCertificate(azureCertificate(otherDates), expected), { code: "wrong-nonce" })
  const other = vm.evidence(certificateReportData(azureDescription, times), { pcrs: { "4": "ee".repeat(32) } })
  assert.throws(() => verifyManagerCertificate(azureCertificate(other), expected), { code: "wrong-manager", message: /PCR4/ })
})

test("verifyManagerByCertificate() takes what vouches for a confidential VM of Azure from the proof over a nonce", async () => {
  const cert = certificatePem(azureCertificate(vm.evidence(certificateReportData(azureDescription, times))))
  const azure = createServer(
    { key: tls.privateKeyPem, cert, minVersion: "TLSv1.3", requestCert: true, rejectUnauthorized: false },
    (request, response) => {
      const nonce = new URL(request.url ?? "/", "https://manager").searchParams.get("nonce") ?? ""
      const evidence = encodeTeeEvidence(vm.evidence(managerReportData(azureDescription, nonce)))
      response.setHeader("content-type", "application/json")
      response.end(JSON.stringify({ perun: 1, manager: signManagerDescription(azureDescription, privateKey), evidence }))
    },
  )
  await new Promise<void>((resolve) => azure.listen(0, "127.0.0.1", resolve))
  try {
    const at = new URL(`https://127.0.0.1:${(azure.address() as AddressInfo).port}`)
    const found = await verifyManagerByCertificate(at, azureAccept, client, { now: new Date(time) })
    assert.deepEqual([found.isFresh, found.accepted.kind], [true, "azure-vtpm"])
  } finally {
    azure.closeAllConnections()
    azure.close()
  }
})

test("verifyManagerByCertificate() says that nobody answers", async () => {
  const nobody = new URL("https://127.0.0.1:9")
  await assert.rejects(verifyManagerByCertificate(nobody, accept, client, { now: new Date(time), supplement }), { code: "unavailable" })
})
