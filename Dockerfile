# candor as a container: only what runs, as an ordinary user, on a root file system that may be read-only.
#   docker build -t candor .
#   docker run --rm --read-only -p 127.0.0.1:10809:10809 -p 127.0.0.1:9809:9809 -v disks:/images -v state:/var/lib/candor candor
# docs/sidecar.md tells of volumes, signals and probes. NODE is the major version of Node: 22, 24, 26, …
ARG NODE=24

# The larger image has the compiler that the two native addons need, and the headers of its Node.
FROM docker.io/library/node:${NODE}-bookworm AS build
# For builders behind a proxy that signs with its own authority: mount its certificate and name it here.
ARG NODE_EXTRA_CA_CERTS
WORKDIR /candor
COPY . .
# fs-ext is built by name: npm 11's rebuild passes over packages that are bundled.
RUN npm ci --ignore-scripts \
 && npm run build:native \
 && npx --no -- node-gyp rebuild -C node_modules/fs-ext \
 && npx tsc -b server server/observe/page \
 && npm prune --omit=dev --ignore-scripts \
 && rm -rf node_modules/nan node_modules/node-gyp-local-headers node_modules/.bin \
 && find dist protocol -name '*.map' -delete \
 && mkdir /out \
 && cp -a --parents package.json LICENSE docs/*.md dist/backends dist/server protocol/*/package.json protocol/*/dist \
      server/observe/page/*.html server/observe/page/*.css server/observe/page/*.svg \
      backends/native/build/Release/file_io.node node_modules /out \
 && find /out -name obj.target -prune -exec rm -rf {} +

FROM docker.io/library/node:${NODE}-bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="candor" \
      org.opencontainers.image.description="An NBD server for sparse disk images that tells the guest the truth" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /opt/candor
COPY --from=build /out ./
RUN chmod 0755 dist/server/main.js \
 && ln -s /opt/candor/dist/server/main.js /usr/local/bin/candor \
 && install -d -o 1000 -g 1000 -m 0700 /images /var/lib/candor
# The user `node` of the base image; as a number, so that Kubernetes can see that it is not root.
USER 1000:1000
# The default state directory is /var/lib/candor, for the server and for `candor ctl` alike.
ENV XDG_STATE_HOME=/var/lib NODE_ENV=production
WORKDIR /images
VOLUME ["/images", "/var/lib/candor"]
EXPOSE 10809 9809
STOPSIGNAL SIGTERM
# Over the admin socket, so that it holds with any --http; what is degraded is for the operator, not for a restart.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["candor", "ctl", "exports"]
ENTRYPOINT ["candor"]
CMD ["serve", "disk.img", "--create", "1G", "--listen", "tcp:0.0.0.0:10809", "--http", "0.0.0.0:9809"]
