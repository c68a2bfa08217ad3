{
  "targets": [
    {
      "target_name": "file_io",
      "sources": [
        "file-io.c", "fs-uuid.c", "io-ops.c", "io-extents.c", "io-space.c", "io-threads.c", "io-ring.c", "io-ring-map.c",
        "io-queue.c", "io-flusher.c", "service-manager.c", "socket-peer.c", "socket-io.c", "page-pipe.c", "door-callback.c", "fd-message.c",
        "fd-outbox.c", "fd-socket.c", "foreign-fd.c", "process-door.c",
        "vhost-guard.c", "vhost-region.c", "vhost-memory.c", "vhost-memory-door.c", "vhost-chain.c", "vhost-log.c",
        "vhost-log-packed.c", "vhost-ring.c", "vhost-split.c", "vhost-packed.c", "vhost-data.c", "vhost-events.c",
        "vhost-queue.c", "vhost-queue-door.c", "tls-context.c",
        "tls-wire.c", "tls-tunnel.c", "tls-threads.c", "tls-door.c"
      ],
      "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror=implicit-function-declaration"],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE", "_FILE_OFFSET_BITS=64"],
      "libraries": ["-lpthread"]
    }
  ]
}
