// What Node's WebSocket and HTTP clients see of a node's last word. See scripts/clients.
'use strict'

const WebSocket = require('ws')
const undici = require('undici')

const node = process.argv[2]
const live = `ws://${node}/v1/events/e/live`
const post = JSON.stringify({ type: 'post', text: 'x' })
const TIMES = 5
const failures = []

const expect = (what, seen, wanted) => {
  if (seen !== wanted) failures.push(`${what}: ${seen}, not ${wanted}`)
}

const CASES = [
  ['a message of 20 KB', ['x'.repeat(20_000)], 1009],
  ['a message of 3 MB', ['x'.repeat(3_000_000)], 1009],
  ['a binary message and 30 posts', [Buffer.from('x'), ...Array(30).fill(post)], 1003]
]

// The code of the close event, as both libraries have it.
const closed = (make, messages) =>
  new Promise((resolve) => {
    const viewer = make()
    viewer.onopen = () => messages.forEach((message) => viewer.send(message))
    viewer.onerror = () => {}
    viewer.onclose = (event) => resolve(event.code)
  })

const status = async (path, options) => {
  try {
    const answer = await undici.request(`http://${node}${path}`, { ...options, reset: true })
    await answer.body.text()
    return answer.statusCode
  } catch (error) {
    return error.message
  }
}

const main = async () => {
  for (let time = 0; time < TIMES; time++) {
    for (const [what, messages, code] of CASES) {
      expect(`ws, ${what}`, await closed(() => new WebSocket(live), messages), code)
      expect(`undici, ${what}`, await closed(() => new undici.WebSocket(live), messages), code)
    }
    const path = '/v1/events/e/comments'
    expect('undici, a head of 60 KB', await status(path, { headers: { x: 'y'.repeat(60_000) } }), 431)
    const body = Buffer.alloc(3_000_000, 'x')
    expect('undici, a body of 3 MB', await status(path, { method: 'POST', body }), 413)
    const bad = Buffer.alloc(100_000, 'x')
    expect('undici, a body that is no post', await status(path, { method: 'POST', body: bad }), 400)
  }
  if (failures.length > 0) {
    console.log(failures.join('\n'))
    console.error(`clients: ${failures.length} times a Node client did not see the last word`)
    process.exit(1)
  }
  console.log("clients: Node's ws and undici each saw the last word")
}

main()
