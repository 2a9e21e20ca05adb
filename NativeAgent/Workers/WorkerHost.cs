using System.Globalization;
using System.Runtime.InteropServices;
using FCtrans.Agent.Rpc;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>The main function of a worker process: its role, and its RPC socket beside it.</summary>
internal static class WorkerHost
{
    /// <summary>
    /// A guest whose worker was killed may be waiting for a page: so long, at most, a worker that was started again does nothing else. Who asks
    /// how it is waits for that.
    /// </summary>
    private static readonly TimeSpan s_headStart = TimeSpan.FromSeconds(1);

    /// <returns>0 when the work has ended, well or badly, and shall not be begun again.</returns>
    public static int Run(WorkerDirectory directory)
    {
        directory.WriteProcessId(Markers.WorkerPid);
        var spec = directory.ReadSpec();
        if (spec is null)
        {
            directory.Mark(Markers.Refused, "The worker was started without a specification.");
            return 0;
        }

        if (directory.Has(Markers.Ended))
        {
            // Killed when all had been done.
            return 0;
        }

        if (directory.IsOfLaterFormat)
        {
            WorkerLog.Write("A later version of the agent has worked for this split VM, and this one does not know all that it has left: it does nothing.");
            return 1;
        }

        directory.RaiseFormat();
        int restarts = directory.ReadNumber(Markers.Restarts);
        WorkerLog.Write($"{WorkerDirectory.RoleName(spec.Role)} worker of split {spec.SplitId}, VM '{spec.VmName}', restarts {restarts}");
        using var stop = new CancellationTokenSource();
        using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
        {
            context.Cancel = true;
            stop.Cancel();
        });

        try
        {
            using IWorkerRole role = spec.Role switch
            {
                WorkerRole.Source => new SourceRole(spec, directory),
                WorkerRole.Main => new MainRole(spec, directory),
                WorkerRole.Sub => new SubRole(spec, directory),
                _ => throw new InvalidOperationException("The specification names no role."),
            };
            bool isAwaited = directory.Has(Markers.Ready) && spec.Role != WorkerRole.Source;
            return Run(spec, directory, role, isAwaited, stop.Token);
        }
        catch (Exception e) when (!directory.Has(Markers.Ready))
        {
            // Nobody relies on it yet: whoever asked for the worker gets the reason instead of a worker.
            WorkerLog.Write($"refused: {e}");
            directory.Mark(Markers.Refused, e.Message);
            return 0;
        }
        catch (Exception e)
        {
            WorkerLog.Write($"failed: {e}");
            return 1;
        }
    }

    /// <param name="isAwaited">A guest may be waiting for it.</param>
    private static int Run(WorkerSpec spec, WorkerDirectory directory, IWorkerRole role, bool isAwaited, CancellationToken stop)
    {
        using var served = new ManualResetEventSlim();
        WorkerServer? server = null;
        Thread? starting = null;
        if (isAwaited)
        {
            // What it throws ends the process: a worker that nobody can ask is started again.
            starting = new Thread(() =>
            {
                served.Wait(s_headStart);
                server = WorkerServer.Start(directory.SocketPath, role);
            })
            {
                IsBackground = true,
                Name = "server",
            };
            starting.Start();
        }
        else
        {
            server = WorkerServer.Start(directory.SocketPath, role);
        }

        try
        {
            role.Run(
                port =>
                {
                    if (!isAwaited)
                    {
                        directory.Mark(Markers.Ready, port.ToString(CultureInfo.InvariantCulture));
                    }

                    served.Set();
                },
                stop);
            served.Set();
            starting?.Join();
            if (role.IsOver)
            {
                directory.WriteStatus(role.Snapshot());
                directory.Mark(Markers.Ended);
            }

            server!.Drain();
            WorkerLog.Write("ended");
            if (role.IsOver)
            {
                role.Linger(stop);
            }

            if (role.IsOver && spec.Role != WorkerRole.Source)
            {
                // Nothing stays behind on a host where a split is over. The source's directory is the record of its migration.
                directory.Remove();
            }

            return 0;
        }
        finally
        {
            served.Set();
            starting?.Join();
            server?.Dispose();
        }
    }
}
