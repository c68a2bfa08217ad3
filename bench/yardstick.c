/* The yardstick: what one thread can reach over a Unix socket when it does nothing but poll, receive, parse, pread or
 * pwrite, and send replies in batches. Fixed newstyle with GO, and the replies that
 * clients ask for (structured ones cost them one more recv for each read); no limit is enforced with care,
 * no error is explained. It is a measure and never a server.  Usage: yardstick IMAGE SOCKET */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, BUFFER_BYTES = 4 << 20, PAYLOAD_BYTES_MAX = 2 << 20, REQUEST_BYTES = 28, REPLY_BYTES = 16, DATA_BYTES = 28 };
enum { CMD_READ = 0, CMD_WRITE = 1, CMD_DISC = 2, CMD_FLUSH = 3 };
enum { OPT_ABORT = 2, OPT_INFO = 6, OPT_GO = 7, OPT_STRUCTURED_REPLY = 8, REP_ACK = 1, REP_INFO = 3 };
#define REP_ERR_UNSUP 0x80000001u
#define REQUEST_MAGIC 0x25609513u
#define REPLY_MAGIC 0x67446698u
#define CHUNK_MAGIC 0x668e33efu
#define CHUNK_LAST_OF_DATA 0x00010001u /* NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA */
#define TRANSMISSION_FLAGS 0x0105 /* HAS_FLAGS | SEND_FLUSH | CAN_MULTI_CONN */

/* in: [start, end) is received and not yet served.  out: [sent, filled) is still to be sent. */
struct client {
    int fd;
    size_t start, end, sent, filled;
    int structured;
    uint8_t *in, *out;
};

static struct client clients[CLIENTS_MAX];
static int image;
static uint64_t image_bytes;

static void put16(uint8_t *at, uint16_t value) { value = htobe16(value); memcpy(at, &value, 2); }
static void put32(uint8_t *at, uint32_t value) { value = htobe32(value); memcpy(at, &value, 4); }
static void put64(uint8_t *at, uint64_t value) { value = htobe64(value); memcpy(at, &value, 8); }
static uint16_t get16(const uint8_t *at) { uint16_t value; memcpy(&value, at, 2); return be16toh(value); }
static uint32_t get32(const uint8_t *at) { uint32_t value; memcpy(&value, at, 4); return be32toh(value); }
static uint64_t get64(const uint8_t *at) { uint64_t value; memcpy(&value, at, 8); return be64toh(value); }

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int receive_all(int fd, void *to, size_t length) {
    return recv(fd, to, length, MSG_WAITALL) == (ssize_t)length;
}

static int send_all(int fd, const void *from, size_t length) {
    return send(fd, from, length, MSG_NOSIGNAL) == (ssize_t)length;
}

static int answer_option(int fd, uint32_t option, uint32_t type, const void *payload, uint32_t length) {
    uint8_t head[20];
    put64(head, 0x0003e889045565a9ull);
    put32(head + 8, option);
    put32(head + 12, type);
    put32(head + 16, length);
    return send_all(fd, head, sizeof head) && (length == 0 || send_all(fd, payload, length));
}

/* The handshake blocks: it is no part of what is measured. Returns 1 when transmission begins. */
static int handshake(int fd, int *structured) {
    uint8_t hello[18] = "NBDMAGICIHAVEOPT", flags[4], head[16], payload[4096], info[12];
    put16(hello + 16, 3); /* FIXED_NEWSTYLE | NO_ZEROES */
    if (!send_all(fd, hello, sizeof hello) || !receive_all(fd, flags, sizeof flags)) return 0;
    while (receive_all(fd, head, sizeof head)) {
        uint32_t option = get32(head + 8), length = get32(head + 12);
        if (length > sizeof payload || (length > 0 && !receive_all(fd, payload, length))) return 0;
        if (option != OPT_GO && option != OPT_INFO) {
            if (option == OPT_STRUCTURED_REPLY) *structured = 1;
            int known = option == OPT_ABORT || option == OPT_STRUCTURED_REPLY;
            if (!answer_option(fd, option, known ? REP_ACK : REP_ERR_UNSUP, NULL, 0)) return 0;
            if (option == OPT_ABORT) return 0;
            continue;
        }
        put16(info, 0); /* NBD_INFO_EXPORT */
        put64(info + 2, image_bytes);
        put16(info + 10, TRANSMISSION_FLAGS);
        if (!answer_option(fd, option, REP_INFO, info, sizeof info)) return 0;
        if (!answer_option(fd, option, REP_ACK, NULL, 0)) return 0;
        if (option == OPT_GO) return 1;
    }
    return 0;
}

static void drop(struct client *client) {
    close(client->fd);
    client->fd = -1;
}

static void admit(int listener) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) return;
    int structured = 0;
    if (!handshake(fd, &structured)) {
        close(fd);
        return;
    }
    for (int i = 0; i < CLIENTS_MAX; i++) {
        struct client *client = &clients[i];
        if (client->fd >= 0) continue;
        if (client->in == NULL) client->in = malloc(BUFFER_BYTES);
        if (client->out == NULL) client->out = malloc(BUFFER_BYTES);
        if (client->in == NULL || client->out == NULL) die("malloc");
        fcntl(fd, F_SETFL, O_NONBLOCK);
        client->fd = fd;
        client->structured = structured;
        client->start = client->end = client->sent = client->filled = 0;
        return;
    }
    close(fd);
}

static uint32_t serve_one(uint16_t command, uint64_t offset, uint8_t *data, uint32_t length) {
    if (command == CMD_READ) return pread(image, data, length, offset) == (ssize_t)length ? 0 : 5;
    if (command == CMD_WRITE) return pwrite(image, data, length, offset) == (ssize_t)length ? 0 : 5;
    if (command == CMD_FLUSH) return fdatasync(image) == 0 ? 0 : 5;
    return 22;
}

/* The header of a reply, in front of the data that are there already; returns how long all of it is. */
static size_t put_reply(uint8_t *reply, const uint8_t *request, uint32_t error, size_t head, uint32_t data) {
    memcpy(reply + 8, request + 8, 8);
    if (error != 0 || head == REPLY_BYTES) {
        put32(reply, REPLY_MAGIC);
        put32(reply + 4, error);
        return REPLY_BYTES + (error == 0 ? data : 0);
    }
    put32(reply, CHUNK_MAGIC);
    put32(reply + 4, CHUNK_LAST_OF_DATA);
    put32(reply + 16, data + 8);
    memcpy(reply + 20, request + 16, 8);
    return head + data;
}

/* Serves what is complete and fits into the batch. Returns 0 when the client is to be dropped. */
static int serve(struct client *client) {
    while (client->end - client->start >= REQUEST_BYTES) {
        uint8_t *request = client->in + client->start, *reply = client->out + client->filled;
        uint16_t command = get16(request + 6);
        uint64_t offset = get64(request + 16);
        uint32_t length = get32(request + 24), error;
        size_t payload = command == CMD_WRITE ? length : 0, answer = command == CMD_READ ? length : 0;
        size_t head = client->structured && command == CMD_READ ? DATA_BYTES : REPLY_BYTES;
        if (get32(request) != REQUEST_MAGIC || command == CMD_DISC || length > PAYLOAD_BYTES_MAX) return 0;
        if (client->end - client->start < REQUEST_BYTES + payload) break;
        if (client->filled + head + answer > BUFFER_BYTES) break;
        error = serve_one(command, offset, command == CMD_READ ? reply + head : request + REQUEST_BYTES, length);
        client->filled += put_reply(reply, request, error, head, answer);
        client->start += REQUEST_BYTES + payload;
    }
    return 1;
}

/* Sends the batch as far as the socket takes it. Returns 0 when the client is to be dropped. */
static int flush_batch(struct client *client) {
    while (client->sent < client->filled) {
        ssize_t sent = send(client->fd, client->out + client->sent, client->filled - client->sent, MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN;
        client->sent += sent;
    }
    client->sent = client->filled = 0;
    return 1;
}

static int fill(struct client *client) {
    memmove(client->in, client->in + client->start, client->end - client->start);
    client->end -= client->start;
    client->start = 0;
    ssize_t got = recv(client->fd, client->in + client->end, BUFFER_BYTES - client->end, 0);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    client->end += got;
    return 1;
}

/* One turn: either the rest of a batch goes out, or requests come in; then whatever is complete is served and sent. */
static int turn(struct client *client) {
    if (client->filled > 0 ? !flush_batch(client) : !fill(client)) return 0;
    while (client->filled == 0) {
        if (!serve(client)) return 0;
        if (client->filled == 0) return 1;
        if (!flush_batch(client)) return 0;
    }
    return 1;
}

int main(int argc, char **argv) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct pollfd polled[CLIENTS_MAX + 1];
    struct stat status;
    if (argc != 3 || strlen(argv[2]) >= sizeof address.sun_path) return 2;
    image = open(argv[1], O_RDWR);
    if (image < 0 || fstat(image, &status) < 0) die(argv[1]);
    image_bytes = status.st_size;
    strcpy(address.sun_path, argv[2]);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 64) < 0) die(argv[2]);
    for (int i = 0; i < CLIENTS_MAX; i++) clients[i].fd = -1;
    for (;;) {
        int used = 0; /* slots up to the last client: nothing is polled in vain */
        polled[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
        for (int i = 0; i < CLIENTS_MAX; i++) {
            if (clients[i].fd < 0) continue;
            while (used <= i) polled[++used].fd = -1;
            polled[used] = (struct pollfd){ .fd = clients[i].fd, .events = clients[i].filled > 0 ? POLLOUT : POLLIN };
        }
        if (poll(polled, used + 1, -1) < 0) die("poll");
        for (int i = 0; i < used; i++)
            if (polled[i + 1].fd >= 0 && polled[i + 1].revents != 0 && !turn(&clients[i])) drop(&clients[i]);
        if (polled[0].revents != 0) admit(listener);
    }
}
