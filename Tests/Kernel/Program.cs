using FCtrans.Kernel.Tests.Paging;

namespace FCtrans.Kernel.Tests;

/// <summary>The test assembly as a program: the processes that tests start, to kill them.</summary>
internal static class Program
{
    private static int Main(string[] arguments) => arguments switch
    {
        ["pager", .. var rest] => PagerProcess.Run(rest),
        ["store", .. var rest] => StoreProcess.Run(rest),
        _ => 2,
    };
}
