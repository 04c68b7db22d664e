/* The smallest external TFLite delegate. It takes no operator; option `fail` makes it say so:
 * `create` as a driver that finds no device does, `prepare` as one that refuses the model does.
 * Option `take` makes it take every operator, and answer with zeros.
 *
 * The declarations are our own, of what the delegate's C interface fixes and no more.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, ERROR = 1 };

struct context;

struct delegate {
  void *data;
  int (*prepare)(struct context *, struct delegate *);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void *opaque;
};

static int decline(struct context *context, struct delegate *self) {
  (void)context;
  return self->data ? ERROR : OK;
}

struct delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                               void (*report)(const char *)) {
  struct delegate *made = calloc(1, sizeof *made);
  if (!made) return NULL;
  made->prepare = decline;
  for (size_t i = 0; i < count; i++) {
    if (strcmp(keys[i], "fail") != 0) continue;
    if (strcmp(values[i], "create") == 0) {
      report("no device of this kind");
      free(made);
      return NULL;
    }
    if (strcmp(values[i], "prepare") == 0) made->data = made;
  }
  return made;
}

void tflite_plugin_destroy_delegate(struct delegate *made) { free(made); }
