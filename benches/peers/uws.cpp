// The peer to measure against: a uWebSockets broadcast server with its native publish/subscribe, in C++ over epoll.
//
// Each socket subscribes to its room (the third segment of its path); what any socket sends is published to
// the room, the sender included. Nothing else is sent: no welcome, no ack, no history.
// Usage: uws ADDRESS PORT   (scripts/lab.py builds it from the sources that a package of the registry carries)

#include "App.h"

#include <cstdio>
#include <cstdlib>
#include <string>

struct Viewer {
  std::string room;
};

int main(int, char **arguments) {
  const std::string address = arguments[1];
  const int port = std::atoi(arguments[2]);
  uWS::App app;
  app.ws<Viewer>("/v1/events/:room/live", {
    .compression = uWS::DISABLED,
    .maxPayloadLength = 64 * 1024,
    .idleTimeout = 120,
    // Far above what a healthy viewer leaves unread: the peer must not win by dropping.
    .maxBackpressure = 16 * 1024 * 1024,
    .sendPingsAutomatically = true,
    .upgrade = [](auto *response, auto *request, auto *context) {
      response->template upgrade<Viewer>(
          {std::string(request->getParameter(0))}, request->getHeader("sec-websocket-key"),
          request->getHeader("sec-websocket-protocol"), request->getHeader("sec-websocket-extensions"), context);
    },
    .open = [](auto *socket) { socket->subscribe(socket->getUserData()->room); },
    .message = [&app](auto *socket, std::string_view message, uWS::OpCode code) {
      app.publish(socket->getUserData()->room, message, code, false);
    },
  });
  app.listen(address, port, [&](auto *listening) {
    if (!listening) {
      std::fprintf(stderr, "cannot listen on %s:%d\n", address.c_str(), port);
      std::exit(1);
    }
    std::puts("ready");
    std::fflush(stdout);
  });
  app.run();
}
