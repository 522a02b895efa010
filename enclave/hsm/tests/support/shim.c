/*
 * A PKCS#11 2.40 module that hands every call on to the one named by ARCA_SHIM_MODULE, and misbehaves as the file
 * ARCA_SHIM_TRIGGER says: "delay MS", "hang", "abort", "error HEX", "sessions" (once: closes all sessions).
 * It appends a byte to ARCA_SHIM_LOGINS for every C_Login. Nothing of it is linked into anything.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long rv;
typedef unsigned long ulong;

/* CK_FUNCTION_LIST: a version, then the functions in the order of the standard. */
struct list {
    unsigned char version[2];
    void *functions[68];
};
enum {
    INITIALIZE = 0, GET_FUNCTION_LIST = 3, OPEN_SESSION = 12, CLOSE_ALL = 14, LOGIN = 18,
    ENCRYPT_INIT = 29, DECRYPT_INIT = 33, SIGN_INIT = 42, GENERATE_RANDOM = 64
};

static struct list real, ours;
static ulong slot_seen;

static rv misbehave(void) {
    const char *trigger = getenv("ARCA_SHIM_TRIGGER");
    char what[64] = {0};
    FILE *file = trigger ? fopen(trigger, "r") : NULL;
    if (!file) return 0;
    if (!fgets(what, sizeof what, file)) what[0] = 0;
    fclose(file);
    if (!strncmp(what, "delay ", 6)) {
        long ms = atol(what + 6);
        struct timespec pause = {ms / 1000, (ms % 1000) * 1000000};
        nanosleep(&pause, NULL);
    } else if (!strncmp(what, "hang", 4)) {
        for (;;) pause();
    } else if (!strncmp(what, "abort", 5)) {
        abort();
    } else if (!strncmp(what, "error ", 6)) {
        return strtoul(what + 6, NULL, 16);
    } else if (!strncmp(what, "sessions", 8)) {
        unlink(trigger);
        ((rv (*)(ulong))real.functions[CLOSE_ALL])(slot_seen);
    }
    return 0;
}

static rv open_session(ulong slot, ulong flags, void *application, void *notify, ulong *session) {
    slot_seen = slot;
    return ((rv (*)(ulong, ulong, void *, void *, ulong *))real.functions[OPEN_SESSION])(slot, flags, application, notify,
                                                                                        session);
}

static rv login(ulong session, ulong user, unsigned char *pin, ulong length) {
    FILE *file = fopen(getenv("ARCA_SHIM_LOGINS"), "a");
    if (file) {
        fputc('x', file);
        fclose(file);
    }
    return ((rv (*)(ulong, ulong, unsigned char *, ulong))real.functions[LOGIN])(session, user, pin, length);
}

#define INIT(name, index)                                                              \
    static rv name(ulong session, void *mechanism, ulong key) {                        \
        rv bad = misbehave();                                                          \
        if (bad) return bad;                                                           \
        return ((rv (*)(ulong, void *, ulong))real.functions[index])(session, mechanism, key); \
    }
INIT(encrypt_init, ENCRYPT_INIT)
INIT(decrypt_init, DECRYPT_INIT)
INIT(sign_init, SIGN_INIT)

static rv generate_random(ulong session, unsigned char *out, ulong length) {
    rv bad = misbehave();
    if (bad) return bad;
    return ((rv (*)(ulong, unsigned char *, ulong))real.functions[GENERATE_RANDOM])(session, out, length);
}

rv C_GetFunctionList(struct list **out) {
    if (!real.functions[INITIALIZE]) {
        void *module = dlopen(getenv("ARCA_SHIM_MODULE"), RTLD_NOW | RTLD_LOCAL);
        struct list *found;
        if (!module) return 5;
        rv got = ((rv (*)(struct list **))dlsym(module, "C_GetFunctionList"))(&found);
        if (got) return got;
        memcpy(&real, found, sizeof real);
        memcpy(&ours, found, sizeof ours);
        ours.functions[GET_FUNCTION_LIST] = C_GetFunctionList;
        ours.functions[OPEN_SESSION] = open_session;
        ours.functions[LOGIN] = login;
        ours.functions[ENCRYPT_INIT] = encrypt_init;
        ours.functions[DECRYPT_INIT] = decrypt_init;
        ours.functions[SIGN_INIT] = sign_init;
        ours.functions[GENERATE_RANDOM] = generate_random;
    }
    *out = &ours;
    return 0;
}
