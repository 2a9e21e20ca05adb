namespace FCtrans.Agent.Workers;

/// <summary>
/// A worker's log: its standard error, which the supervisor has opened on <c>worker.log</c>. For events; never one a fault
/// or a page.
/// </summary>
internal static class WorkerLog
{
    private static readonly Lock s_gate = new();

    public static void Write(string text)
    {
        lock (s_gate)
        {
            Console.Error.WriteLine($"{DateTime.UtcNow:O} [{Environment.ProcessId}] {text}");
        }
    }
}
