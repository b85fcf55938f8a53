import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { describeFailure, failureText } from "./failure.ts"

const code = new Map([
  ["/opt/ml/code/train.py", 50],
  ["/opt/ml/code/model.py", 20],
])

const traceback = `epoch 1
Traceback (most recent call last):
  File "/opt/ml/code/train.py", line 40, in <module>
    main()
  File "/opt/ml/code/model.py", line 12, in forward
    return patients["Smith"]
  File "/usr/lib/python3/dist-packages/torch/nn/module.py", line 1190, in _call_impl
    raise KeyError(key)
KeyError: 'Smith'
`

test("describeFailure() names the exception and the innermost line of the code artifact, nothing else", () => {
  assert.deepEqual(describeFailure(encodeUtf8(traceback), code), { exception: "KeyError", line: 12 })
})

test("describeFailure() takes the last traceback", () => {
  const two = traceback + 'Traceback (most recent call last):\n  File "/opt/ml/code/train.py", line 7, in <module>\nValueError\n'
  assert.deepEqual(describeFailure(encodeUtf8(two), code), { exception: "ValueError", line: 7 })
})

test("describeFailure() repeats no exception name of the job's own", () => {
  const own = traceback.replace("KeyError: 'Smith'", "smith.AgeIs47: x")
  assert.deepEqual(describeFailure(encodeUtf8(own), code), { exception: "other", line: 12 })
})

test("describeFailure() repeats no line that the code does not have", () => {
  const beyond = traceback.replace("line 12", "line 21").replace("line 40", "line 0")
  assert.deepEqual(describeFailure(encodeUtf8(beyond), code), { exception: "KeyError", line: undefined })
})

test("describeFailure() says nothing without a traceback", () => {
  assert.equal(describeFailure(encodeUtf8("Smith, 47\n"), code), undefined)
  assert.deepEqual(describeFailure(encodeUtf8("Traceback (most recent call last):\n  x"), code), { exception: "other", line: undefined })
})

test("failureText() is one line of plain words", () => {
  assert.equal(failureText(1, { exception: "KeyError", line: 12 }), "the job ended with exit code 1, KeyError, line 12 of its code")
  assert.equal(failureText(1, { exception: "other", line: undefined }), "the job ended with exit code 1, exception of its own kind")
  assert.equal(failureText(null, undefined), "the job was ended by a signal")
})
