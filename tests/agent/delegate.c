/* The smallest external TFLite delegate, as drivers of accelerators are.
 *
 * It takes no operator, unless an option says otherwise:
 *   take=all       it takes every one, and answers with 1 whatever it is asked
 *   fail=create    it finds no device
 *   fail=prepare   it refuses the model
 *
 * The declarations are our own, of what the delegate's C interface fixes (64 bit), and no more.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, ERROR = 1 };

struct ints { int size; int data[]; };

struct tensor {
  int type;
  float *data;
  struct ints *dims;
  float scale; int32_t zero_point;
  int allocation;
  size_t bytes;
  void *more[8];
};

struct node { struct ints *inputs, *outputs; };

struct context;
struct delegate;

struct kernel {
  void *(*init)(struct context *, const char *, size_t);
  void (*free)(struct context *, void *);
  int (*prepare)(struct context *, struct node *);
  int (*invoke)(struct context *, struct node *);
  const char *(*profiling)(const struct context *, const struct node *);
  int32_t builtin_code;
  const char *name;
  int version;
  void *more[4];
};

struct context {
  size_t tensors_size;
  int (*execution_plan)(struct context *, struct ints **);
  struct tensor *tensors;
  void *own;
  void *resize, *report, *add;
  int (*node)(struct context *, int, struct node **, struct kernel **);
  int (*replace)(struct context *, struct kernel, const struct ints *, struct delegate *);
};

struct delegate {
  void *data;
  int (*prepare)(struct context *, struct delegate *);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void *opaque;
};

static int ones(struct context *context, struct node *node) {
  for (int i = 0; i < node->outputs->size; i++) {
    struct tensor *output = &context->tensors[node->outputs->data[i]];
    for (size_t j = 0; j < output->bytes / sizeof(float); j++) output->data[j] = 1;
  }
  return OK;
}

static int decline(struct context *context, struct delegate *self) {
  (void)context, (void)self;
  return OK;
}

static int refuse(struct context *context, struct delegate *self) {
  (void)context, (void)self;
  return ERROR;
}

static int take(struct context *context, struct delegate *self) {
  struct kernel kernel = {.invoke = ones, .name = "OnesDelegate", .version = 1};
  struct ints *plan;
  if (context->execution_plan(context, &plan) != OK) return ERROR;
  return context->replace(context, kernel, plan, self);
}

struct delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                               void (*report)(const char *)) {
  struct delegate *made = calloc(1, sizeof *made);
  if (!made) return NULL;
  made->prepare = decline;
  for (size_t i = 0; i < count; i++) {
    if (strcmp(keys[i], "take") == 0) made->prepare = take;
    if (strcmp(keys[i], "fail") == 0 && strcmp(values[i], "prepare") == 0) made->prepare = refuse;
    if (strcmp(keys[i], "fail") == 0 && strcmp(values[i], "create") == 0) {
      report("no device of this kind");
      free(made);
      return NULL;
    }
  }
  return made;
}

void tflite_plugin_destroy_delegate(struct delegate *made) { free(made); }
