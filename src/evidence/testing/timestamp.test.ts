import { encodeUtf8 } from "../../bytes/text.ts"
import { parseCertificate } from "../../pki/certificate.ts"
import { LaboratoryTimeAuthority } from "../../pki/timestamp-authority.testing.ts"
import { encodeTimestampRequest, makeTimestampRequest, parseTimestampResponse } from "../../pki/timestamp-format.ts"
import { verifyTimestamp } from "../../pki/timestamp.ts"
import { testBitFlips, testFuzz, testParserLaws, testTruncations } from "./parser-laws.ts"

/** Time stamps under the laws of parsers, which are kept in this room. */

const authority = new LaboratoryTimeAuthority()
const request = makeTimestampRequest(encodeUtf8("laws"), (length) => new Uint8Array(length).fill(0x5a))
const response = authority.answer(encodeTimestampRequest(request), { genTime: Date.parse("2026-11-22T12:00:00.25Z"), tsa: "time authority" })
const expectation = { request, roots: [parseCertificate(authority.root)], policies: "any", maxAccuracyMilliseconds: 0 } as const
const verify = (bytes: Uint8Array): unknown => verifyTimestamp(bytes, expectation)

testParserLaws({ name: "parseTimestampResponse", parse: parseTimestampResponse, samples: [response] })
testBitFlips("verifyTimestamp()", response, verify)
testTruncations("verifyTimestamp()", response, verify)
testFuzz("verifyTimestamp()", [response], verify)
