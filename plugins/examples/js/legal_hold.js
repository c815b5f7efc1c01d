// No delete of a session that has a label. The settings name it: {"label": "legal-hold"}.
//
// What is exported here is what the world in wit/plugin.wit asks for. Names in kebab-case are camelCase here,
// and a value of a variant is {tag, val}.

const DEFAULT_LABEL = 'legal-hold';

/** Reads settings. Answers {label, problems}. */
function read(json) {
    let settings;
    try {
        settings = json.trim() === '' ? {} : JSON.parse(json);
    } catch {
        return { problems: [{ field: '', message: 'the settings are not a JSON document' }] };
    }
    if (settings === null || typeof settings !== 'object' || Array.isArray(settings)) {
        return { problems: [{ field: '', message: 'settings must be an object' }] };
    }
    const problems = [];
    const { label = DEFAULT_LABEL, ...unknown } = settings;
    if (typeof label !== 'string' || label === '') {
        problems.push({ field: '/label', message: 'the label needs a name' });
    }
    for (const name of Object.keys(unknown)) {
        problems.push({ field: `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`, message: 'no such setting' });
    }
    return { label, problems };
}

export const describe = {
    describe() {
        return {
            name: 'legal-hold-js',
            version: '1.0.0',
            description: 'A label keeps a session from being deleted.',
            settingsSchema: JSON.stringify({
                $schema: 'https://json-schema.org/draft/2020-12/schema',
                type: 'object',
                additionalProperties: false,
                properties: { label: { type: 'string', minLength: 1, default: DEFAULT_LABEL } },
            }),
            hooks: ['session.delete'],
            events: [],
            wants: [],
        };
    },
};

export const settings = {
    validate(json) {
        const { problems } = read(json);
        // An error of a result is thrown; its payload is the list.
        if (problems.length > 0) throw problems;
    },
};

export const gate = {
    before(context, operation) {
        if (operation.name !== 'session.delete') return { tag: 'allow' };
        const { label, problems } = read(context.settings);
        if (problems.length > 0) {
            return deny('invalid_settings', 'the settings of legal-hold are not valid');
        }
        // A creation has no session yet. Compare with ==: a missing value is null in one engine and undefined in another.
        const held = context.session?.labels.find(({ key }) => key === label);
        if (held == null || held.value === 'false') return { tag: 'allow' };
        return deny('legal_hold', `the label ${label} keeps this session from being deleted`);
    },
};

function deny(code, message) {
    return { tag: 'deny', val: { code, message, retryAfter: undefined } };
}
