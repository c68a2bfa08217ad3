/* Descriptors that another process handed over. */
#ifndef CANDOR_FOREIGN_FD_H
#define CANDOR_FOREIGN_FD_H

#include <node_api.h>
#include <stdbool.h>

/* An eventfd(2); and a file of tmpfs, memfd or hugetlbfs. Asked without the file system behind the descriptor. */
bool foreign_is_event(int fd);
bool foreign_is_memory(int fd);
/* close(2) that neither waits nor fails, whatever the descriptor is of. */
void foreign_close(int fd);

napi_value close_foreign(napi_env env, napi_callback_info info);
napi_value is_memory_file(napi_env env, napi_callback_info info);

#endif
