// A strict reader of JSON (RFC 8259). The text is UTF-8 already: the host gives nothing else.

#include <stdlib.h>
#include <string.h>

#include "json.h"

// How deep values may lie in each other, so that no document uses up the stack.
#define DEPTH 64

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} reader;

static void skip_blanks(reader *in) {
    while (in->at < in->end && strchr(" \t\r\n", *in->at) != NULL && *in->at != 0) {
        in->at++;
    }
}

static bool take(reader *in, char expected) {
    if (in->at == in->end || *in->at != expected) {
        return false;
    }
    in->at++;
    return true;
}

static bool take_word(reader *in, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(in->end - in->at) < length || memcmp(in->at, word, length) != 0) {
        return false;
    }
    in->at += length;
    return true;
}

static bool digits(reader *in) {
    const uint8_t *first = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9') {
        in->at++;
    }
    return in->at > first;
}

static bool number(reader *in) {
    take(in, '-');
    if (!take(in, '0') && !digits(in)) {
        return false;
    }
    if (take(in, '.') && !digits(in)) {
        return false;
    }
    if (take(in, 'e') || take(in, 'E')) {
        if (!take(in, '+')) {
            take(in, '-');
        }
        return digits(in);
    }
    return true;
}

static bool hex(reader *in, uint32_t *value) {
    *value = 0;
    for (int i = 0; i < 4; i++) {
        if (in->at == in->end) {
            return false;
        }
        uint8_t digit = *in->at++;
        uint8_t lower = digit | 0x20;
        if (digit >= '0' && digit <= '9') {
            *value = *value * 16 + (digit - '0');
        } else if (lower >= 'a' && lower <= 'f') {
            *value = *value * 16 + (lower - 'a' + 10);
        } else {
            return false;
        }
    }
    return true;
}

static uint8_t *put_utf8(uint8_t *out, uint32_t code) {
    if (code < 0x80) {
        *out++ = (uint8_t)code;
    } else if (code < 0x800) {
        *out++ = (uint8_t)(0xc0 | code >> 6);
        *out++ = (uint8_t)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *out++ = (uint8_t)(0xe0 | code >> 12);
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (code & 0x3f));
    } else {
        *out++ = (uint8_t)(0xf0 | code >> 18);
        *out++ = (uint8_t)(0x80 | (code >> 12 & 0x3f));
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (code & 0x3f));
    }
    return out;
}

// An escape of the form \uXXXX, or a pair of them. A surrogate without its other half is refused.
static bool code_point(reader *in, uint32_t *code) {
    uint32_t low;
    if (!hex(in, code) || (*code >= 0xdc00 && *code < 0xe000)) {
        return false;
    }
    if (*code < 0xd800 || *code >= 0xe000) {
        return true;
    }
    if (!take(in, '\\') || !take(in, 'u') || !hex(in, &low) || low < 0xdc00 || low >= 0xe000) {
        return false;
    }
    *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

// The text of a string. No escape is shorter than what it stands for, so the rest of the document is room enough.
static bool string(reader *in, uint8_t **text, size_t *length) {
    static const char escaped[] = "\"\\/bfnrt", plain[] = "\"\\/\b\f\n\r\t";
    if (!take(in, '"')) {
        return false;
    }
    uint8_t *out = *text = malloc((size_t)(in->end - in->at) + 1);
    while (in->at < in->end) {
        uint8_t byte = *in->at++;
        if (byte == '"') {
            *length = (size_t)(out - *text);
            return true;
        }
        if (byte < 0x20) {
            return false;
        }
        if (byte != '\\') {
            *out++ = byte;
            continue;
        }
        uint32_t code;
        if (take(in, 'u')) {
            if (!code_point(in, &code)) {
                return false;
            }
            out = put_utf8(out, code);
            continue;
        }
        const char *found = in->at < in->end && *in->at != 0 ? strchr(escaped, *in->at) : NULL;
        if (found == NULL) {
            return false;
        }
        in->at++;
        *out++ = (uint8_t)plain[found - escaped];
    }
    return false;
}

static bool value(reader *in, int depth);

static bool object(reader *in, int depth, json_object *kept) {
    skip_blanks(in);
    if (take(in, '}')) {
        return true;
    }
    do {
        json_member member = {0};
        skip_blanks(in);
        if (!string(in, &member.name, &member.name_length)) {
            return false;
        }
        skip_blanks(in);
        if (!take(in, ':')) {
            return false;
        }
        skip_blanks(in);
        member.is_string = in->at < in->end && *in->at == '"';
        if (member.is_string ? !string(in, &member.value, &member.value_length) : !value(in, depth + 1)) {
            return false;
        }
        if (kept != NULL && kept->count < JSON_MEMBERS) {
            kept->members[kept->count++] = member;
        }
        skip_blanks(in);
    } while (take(in, ','));
    return take(in, '}');
}

static bool array(reader *in, int depth) {
    skip_blanks(in);
    if (take(in, ']')) {
        return true;
    }
    do {
        if (!value(in, depth + 1)) {
            return false;
        }
        skip_blanks(in);
    } while (take(in, ','));
    return take(in, ']');
}

static bool value(reader *in, int depth) {
    uint8_t *text;
    size_t length;
    skip_blanks(in);
    if (depth > DEPTH || in->at == in->end) {
        return false;
    }
    switch (*in->at) {
    case '{':
        in->at++;
        return object(in, depth, NULL);
    case '[':
        in->at++;
        return array(in, depth);
    case '"':
        return string(in, &text, &length);
    case 't':
        return take_word(in, "true");
    case 'f':
        return take_word(in, "false");
    case 'n':
        return take_word(in, "null");
    default:
        return number(in);
    }
}

json_kind json_read_object(const uint8_t *text, size_t length, json_object *object_read) {
    reader in = {text, text + length};
    object_read->count = 0;
    skip_blanks(&in);
    if (in.at == in.end) {
        return JSON_OBJECT;
    }
    bool is_object = take(&in, '{');
    if (is_object ? !object(&in, 0, object_read) : !value(&in, 0)) {
        return JSON_BROKEN;
    }
    skip_blanks(&in);
    if (in.at < in.end) {
        return JSON_BROKEN;
    }
    return is_object ? JSON_OBJECT : JSON_OTHER;
}
