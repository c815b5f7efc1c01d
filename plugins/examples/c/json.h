// Reads a JSON object as far as settings need it: the names of its members, and the text of those that are strings.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// More members than this are read and not kept.
#define JSON_MEMBERS 16

typedef struct {
    uint8_t *name;
    size_t name_length;
    // The text, if it is a string.
    bool is_string;
    uint8_t *value;
    size_t value_length;
} json_member;

typedef struct {
    json_member members[JSON_MEMBERS];
    size_t count;
} json_object;

typedef enum {
    // Not a JSON document.
    JSON_BROKEN,
    // A document that is no object.
    JSON_OTHER,
    JSON_OBJECT,
} json_kind;

// Reads a document. An empty one is an object without members.
json_kind json_read_object(const uint8_t *text, size_t length, json_object *object);
