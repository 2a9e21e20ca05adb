using System.Globalization;
using System.Runtime.InteropServices;

namespace FCtrans.Shell;

/// <summary>The programs that this process started.</summary>
internal static partial class Children
{
    private const int SigTerm = 15;

    /// <summary>Asks every direct child to end. A child that has just ended is passed over.</summary>
    public static void Terminate()
    {
        foreach (string task in Directory.GetDirectories("/proc/self/task"))
        {
            try
            {
                foreach (string pid in File.ReadAllText(Path.Combine(task, "children")).Split(' ', StringSplitOptions.RemoveEmptyEntries))
                {
                    _ = Kill(int.Parse(pid, CultureInfo.InvariantCulture), SigTerm);
                }
            }
            catch (IOException)
            {
                // The thread has ended, or this kernel does not list children (CONFIG_PROC_CHILDREN).
            }
        }
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int pid, int signal);
}
