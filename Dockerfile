# syntax=docker/dockerfile:1
FROM node:22-bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends make g++ python3 && rm -rf /var/lib/apt/lists/*
WORKDIR /candor
COPY . .
RUN npm ci && npm prune --omit=dev

FROM node:22-bookworm-slim
LABEL org.opencontainers.image.title="candor" \
      org.opencontainers.image.description="An NBD server for sparse disk images that tells the guest the truth" \
      org.opencontainers.image.licenses="MIT"
WORKDIR /candor
COPY --from=build /candor/package.json ./
COPY --from=build /candor/node_modules ./node_modules
COPY --from=build /candor/protocol/nbd/package.json ./protocol/nbd/
COPY --from=build /candor/protocol/nbd/dist ./protocol/nbd/dist
COPY --from=build /candor/protocol/vhost-user/package.json ./protocol/vhost-user/
COPY --from=build /candor/protocol/vhost-user/dist ./protocol/vhost-user/dist
COPY --from=build /candor/dist/backends ./dist/backends
COPY --from=build /candor/dist/server ./dist/server
COPY --from=build /candor/server/observe/page ./server/observe/page
COPY --from=build /candor/docs ./docs
COPY --from=build /candor/backends/native/build/Release/file_io.node ./backends/native/build/Release/
RUN mkdir -p /images /var/lib/candor && chown node:node /images /var/lib/candor
USER node
VOLUME ["/images", "/var/lib/candor"]
EXPOSE 10809 9809
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["node", "-e", "fetch('http://127.0.0.1:9809/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "dist/server/main.js"]
CMD ["serve", "/images/disk.img", "--create", "1G", "--listen", "tcp:0.0.0.0:10809", "--http", "0.0.0.0:9809", "--state-dir", "/var/lib/candor"]
