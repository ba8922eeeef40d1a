/* The C library's worker, for comparison: worker HOST PORT. Serves `echo` with libgearman's defaults. */
#include <libgearman/gearman.h>
#include <stdlib.h>
#include <string.h>

static void *echo(gearman_job_st *job, void *context, size_t *size, gearman_return_t *status)
{
    (void)context;
    *size = gearman_job_workload_size(job);
    void *result = malloc(*size + 1);
    if (result == NULL) {
        *status = GEARMAN_WORK_FAIL;
        return NULL;
    }
    memcpy(result, gearman_job_workload(job), *size);
    *status = GEARMAN_SUCCESS;
    return result;
}

int main(int count, char **arguments)
{
    gearman_worker_st *worker = gearman_worker_create(NULL);
    if (count != 3 || worker == NULL)
        return 2;
    gearman_worker_add_server(worker, arguments[1], (in_port_t)atoi(arguments[2]));
    gearman_worker_add_function(worker, "echo", 0, echo, NULL);
    while (gearman_worker_work(worker) == GEARMAN_SUCCESS)
        ;
    return 1;
}
