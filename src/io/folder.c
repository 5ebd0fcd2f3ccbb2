#include "folder.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beyond these nothing is looked at. */
#define MAX_DEPTH 8
#define MAX_FILES 10000

static void *grow(void *items, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return items;
    *room = *room > 0 ? 2 * *room : 16;
    items = realloc(items, *room * size);
    if (items == NULL)
        abort();
    return items;
}

/* A link may lead back to a directory above. */
static bool enter_once(luna_folder *folder, const struct stat *dir)
{
    for (size_t i = 0; i < folder->n_dirs; i++)
        if (folder->dirs[i].st_dev == dir->st_dev && folder->dirs[i].st_ino == dir->st_ino)
            return false;
    folder->dirs = grow(folder->dirs, folder->n_dirs, &folder->room_dirs, sizeof(*dir));
    folder->dirs[folder->n_dirs++] = *dir;
    return true;
}

static void add_file(luna_folder *folder, char *path, const struct stat *is)
{
    folder->files = grow(folder->files, folder->n, &folder->room, sizeof(*folder->files));
    folder->files[folder->n++] = (luna_file){ path, *is };
}

static bool ends_in(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

typedef struct luna_walk {
    luna_folder *folder;
    const char *suffix;
    luna_folder_each enter;
    void *user;
} luna_walk;

static void walk(const luna_walk *w, const char *path, int depth);

static void look_at(const luna_walk *w, const char *dir, const char *name, int depth)
{
    char *path = NULL;
    struct stat is;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        abort();
    bool is_there = stat(path, &is) == 0;
    if (is_there && S_ISREG(is.st_mode) && ends_in(name, w->suffix)) {
        add_file(w->folder, path, &is);
        return;
    }
    if (is_there && S_ISDIR(is.st_mode) && enter_once(w->folder, &is))
        walk(w, path, depth + 1);
    free(path);
}

static void walk(const luna_walk *w, const char *path, int depth)
{
    if (depth > MAX_DEPTH)
        return;
    if (w->enter != NULL)
        w->enter(w->user, path);
    DIR *dir = opendir(path);
    if (dir == NULL)
        return;
    for (struct dirent *e = readdir(dir); e != NULL && w->folder->n < MAX_FILES; e = readdir(dir))
        look_at(w, path, e->d_name, depth);
    closedir(dir);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const luna_file *)a)->path, ((const luna_file *)b)->path);
}

void luna_folder_read(luna_folder *folder, const char *path, const char *suffix,
                      luna_folder_each enter, void *user)
{
    struct stat is;
    if (stat(path, &is) != 0 || !S_ISDIR(is.st_mode))
        return;
    enter_once(folder, &is);
    walk(&(luna_walk){ folder, suffix, enter, user }, path, 1);
    if (folder->n > 0)
        qsort(folder->files, folder->n, sizeof(*folder->files), by_path);
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           same_time(a->st_mtim, b->st_mtim) && same_time(a->st_ctim, b->st_ctim);
}

void luna_folder_compare(const luna_folder *before, const luna_folder *now,
                         luna_folder_each changed, void *user)
{
    size_t i = 0, j = 0;
    while (i < before->n || j < now->n) {
        int order = i == before->n ? 1
                    : j == now->n  ? -1
                                   : by_path(&before->files[i], &now->files[j]);
        if (order != 0 || !is_same(&before->files[i].is, &now->files[j].is))
            changed(user, order < 0 ? before->files[i].path : now->files[j].path);
        i += order <= 0;
        j += order >= 0;
    }
}

int luna_folder_has(const luna_folder *folder, const char *path)
{
    luna_file key = { .path = (char *)(uintptr_t)path };
    return folder->n > 0 && bsearch(&key, folder->files, folder->n, sizeof(key), by_path) != NULL;
}

void luna_folder_free(luna_folder *folder)
{
    for (size_t i = 0; i < folder->n; i++)
        free(folder->files[i].path);
    free(folder->files);
    free(folder->dirs);
    *folder = (luna_folder){ 0 };
}
