// No delete of a session that has a label. The settings name it: {"label": "legal-hold"}.
//
// The functions named exports_… are what the world in plugin.wit asks for; plugin.h and plugin.c are made from it (see README.md).
// Every call has an instance of its own, whose memory goes with it, so nothing is freed here.
// What is answered is freed by plugin.c after the call: it must lie on the heap, which is what `kept` is for.

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "plugin.h"

#define SCHEMA \
    "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"type\":\"object\",\"additionalProperties\":false," \
    "\"properties\":{\"label\":{\"type\":\"string\",\"minLength\":1,\"default\":\"legal-hold\"}}}"

typedef plugin_string_t text;
typedef portcullis_policy_types_decision_t decision;
typedef exports_portcullis_policy_settings_problem_t problem;

// At most so many problems are told of.
#define PROBLEMS 16

typedef struct {
    text label;
    problem problems[PROBLEMS];
    size_t count;
} rules;

static text of(const char *words) {
    return (text){(uint8_t *)words, strlen(words)};
}

// The same words on the heap.
static text kept(text words) {
    text copy = {malloc(words.len), words.len};
    memcpy(copy.ptr, words.ptr, words.len);
    return copy;
}

static bool is(text one, const char *other) {
    return one.len == strlen(other) && memcmp(one.ptr, other, one.len) == 0;
}

static bool same(text one, text other) {
    return one.len == other.len && memcmp(one.ptr, other.ptr, one.len) == 0;
}

static text joined(text one, text two, text three) {
    text whole = {malloc(one.len + two.len + three.len), 0};
    text parts[] = {one, two, three};
    for (size_t i = 0; i < 3; i++) {
        memcpy(whole.ptr + whole.len, parts[i].ptr, parts[i].len);
        whole.len += parts[i].len;
    }
    return whole;
}

static void complain(rules *found, text field, const char *message) {
    if (found->count < PROBLEMS) {
        found->problems[found->count++] = (problem){kept(field), kept(of(message))};
    }
}

// The JSON Pointer of a field of the document.
static text pointer(text name) {
    text escaped = {malloc(1 + 2 * name.len), 1};
    escaped.ptr[0] = '/';
    for (size_t i = 0; i < name.len; i++) {
        uint8_t byte = name.ptr[i];
        if (byte == '~' || byte == '/') {
            escaped.ptr[escaped.len++] = '~';
            byte = byte == '~' ? '0' : '1';
        }
        escaped.ptr[escaped.len++] = byte;
    }
    return escaped;
}

static rules read_rules(text json) {
    rules found = {.label = of("legal-hold")};
    json_object settings;
    switch (json_read_object(json.ptr, json.len, &settings)) {
    case JSON_BROKEN:
        complain(&found, of(""), "the settings are not a JSON document");
        return found;
    case JSON_OTHER:
        complain(&found, of(""), "settings must be an object");
        return found;
    case JSON_OBJECT:
        break;
    }
    for (size_t i = 0; i < settings.count; i++) {
        json_member member = settings.members[i];
        text name = {member.name, member.name_length};
        if (!is(name, "label")) {
            complain(&found, pointer(name), "no such setting");
        } else if (!member.is_string || member.value_length == 0) {
            complain(&found, of("/label"), "the label needs a name");
        } else {
            found.label = (text){member.value, member.value_length};
        }
    }
    return found;
}

static void allow(decision *answer) {
    answer->tag = PORTCULLIS_POLICY_TYPES_DECISION_ALLOW;
}

static void deny(decision *answer, const char *code, text message) {
    answer->tag = PORTCULLIS_POLICY_TYPES_DECISION_DENY;
    answer->val.deny = (portcullis_policy_types_denial_t){kept(of(code)), message, {false, 0}};
}

void exports_portcullis_policy_describe_describe(exports_portcullis_policy_describe_description_t *answer) {
    text *hooks = malloc(sizeof *hooks);
    hooks[0] = kept(of("session.delete"));
    *answer = (exports_portcullis_policy_describe_description_t){
        .name = kept(of("legal-hold-c")),
        .version = kept(of("1.0.0")),
        .description = kept(of("A label keeps a session from being deleted.")),
        .settings_schema = {true, kept(of(SCHEMA))},
        .hooks = {hooks, 1},
    };
}

bool exports_portcullis_policy_settings_validate(
    plugin_string_t *json, exports_portcullis_policy_settings_list_problem_t *problems) {
    rules found = read_rules(*json);
    problems->ptr = malloc(sizeof found.problems);
    problems->len = found.count;
    memcpy(problems->ptr, found.problems, sizeof found.problems);
    return found.count == 0;
}

void exports_portcullis_policy_gate_before(
    exports_portcullis_policy_gate_context_t *context, exports_portcullis_policy_gate_operation_t *operation,
    exports_portcullis_policy_gate_decision_t *answer) {
    allow(answer);
    if (!is(operation->name, "session.delete")) {
        return;
    }
    rules found = read_rules(context->settings);
    if (found.count > 0) {
        deny(answer, "invalid_settings", kept(of("the settings of legal-hold are not valid")));
        return;
    }
    // A creation has no session yet.
    portcullis_policy_types_list_label_t none = {NULL, 0};
    portcullis_policy_types_list_label_t labels = context->session.is_some ? context->session.val.labels : none;
    for (size_t i = 0; i < labels.len; i++) {
        if (same(labels.ptr[i].key, found.label) && !is(labels.ptr[i].value, "false")) {
            deny(answer, "legal_hold", joined(of("the label "), found.label, of(" keeps this session from being deleted")));
            return;
        }
    }
}
