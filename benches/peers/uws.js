// The peer to measure against: a uWebSockets broadcast server with its native publish/subscribe.
//
// Each socket subscribes to its room (the third segment of its path); what any socket sends is published to
// the room, the sender included. Nothing else is sent: no welcome, no ack, no history.
// Usage: node uws.js PORT   (Node 20; `uwebsockets` 3.0.6 is found through NODE_PATH)
'use strict';

const uws = require('uwebsockets');

const port = Number(process.argv[2]);
const app = uws.App();

app.ws('/v1/events/:room/live', {
  compression: uws.DISABLED,
  maxPayloadLength: 64 * 1024,
  // Far above what a healthy viewer leaves unread: the peer must not win by dropping.
  maxBackpressure: 16 * 1024 * 1024,
  idleTimeout: 120,
  sendPingsAutomatically: true,
  upgrade: (response, request, context) => {
    response.upgrade(
      { room: request.getParameter(0) },
      request.getHeader('sec-websocket-key'),
      request.getHeader('sec-websocket-protocol'),
      request.getHeader('sec-websocket-extensions'),
      context,
    );
  },
  open: (socket) => {
    socket.subscribe(socket.getUserData().room);
  },
  message: (socket, message, isBinary) => {
    app.publish(socket.getUserData().room, message, isBinary, false);
  },
});

app.listen('127.0.0.1', port, (listening) => {
  if (!listening) {
    console.error(`cannot listen on 127.0.0.1:${port}`);
    process.exit(1);
  }
  console.log('ready');
});
